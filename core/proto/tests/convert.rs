//! Resources as messages: every form is read, every mistake is named.

use proptest::prelude::*;
use tepui_model::{ContainerId, Resources};
use tepui_proto::Message as _;
use tepui_proto::convert::{self, Format};
use tepui_proto::{json, v1};

const TEXT: &str = "cpus:0.5; mem(allocated: r):128; ports(reservations: [(STATIC,r)]):[1-2, 4-5]; \
    disk(reservations: [(DYNAMIC,r,p,{k: v})])[PATH:/x,id:data]:64; \
    cpus{REV}:1; disk(reservations: [(DYNAMIC,r),(DYNAMIC,r/s)])[MOUNT(w,i,p)]<SHARED>:9<1>; \
    zones:{a, b}";

fn all() -> Resources {
    Resources::parse(TEXT, "*").expect("resources")
}

#[test]
fn every_form_is_read_back() {
    for format in [Format::Post, Format::Pre, Format::Endpoint] {
        let messages = convert::to_proto_as(&all(), format);
        let back = convert::resources(&messages).expect("what we wrote");
        assert_eq!(back.to_string(), TEXT, "{format:?}");
    }
}

/// Resources of every kind that text can say, put together at random.
fn resources() -> impl Strategy<Value = Resources> {
    use prop::sample::select;
    let disk = [
        "[PATH:/p]",
        "[MOUNT(v,i,f):/m,id:to]",
        "[RAW(,,f)]",
        "[id:to]",
        "[BLOCK(v,i,)]",
    ];
    let kind = prop_oneof![
        3 => (select(vec!["cpus", "mem", "x"]), 1_u32..99_999)
            .prop_map(|(name, n)| (name, "", (f64::from(n) / 1000.0).to_string())),
        1 => (0_u64..99, 0_u64..9)
            .prop_map(|(a, n)| ("ports", "", format!("[{a}-{}]", a + n))),
        1 => select(vec!["{a}", "{a,b}"]).prop_map(|set| ("zones", "", set.into())),
        1 => select(disk.to_vec()).prop_map(|disk| ("disk", disk, "64".into())),
    ];
    let stack = [
        "",
        "(reservations: [(STATIC,r)])",
        "(reservations: [(DYNAMIC,r,p,{k: v})])",
        "(reservations: [(STATIC,r),(DYNAMIC,r/s,p)])",
    ];
    let allocated = select(vec!["", "(allocated: q)"]);
    let revocable = select(vec!["", "{REV}"]);
    let one = (kind, select(stack.to_vec()), allocated, revocable);
    let one = one.prop_map(|((name, disk, value), stack, allocated, revocable)| {
        format!("{name}{allocated}{stack}{disk}{revocable}:{value}")
    });
    prop::collection::vec(one, 0..5)
        .prop_map(|all| Resources::parse(&all.join(";"), "*").expect("resources"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn json_and_back(all in resources()) {
        for format in [Format::Post, Format::Pre, Format::Endpoint] {
            let texts: Vec<String> = convert::to_proto_as(&all, format)
                .iter()
                .map(|message| String::from_utf8(json::from_message(message)).expect("UTF-8"))
                .collect();
            for (resource, message) in all.iter().zip(convert::to_proto_as(&all, format)) {
                let mut bytes = Vec::new();
                convert::put_resource(5, resource, format, resource.allocation_role(), &mut bytes);
                let expected = v1::Offer { resources: vec![message], ..Default::default() };
                let mut read = v1::Offer::default();
                read.merge(&bytes[..]).expect("a field of an offer");
                prop_assert_eq!(read, expected);
            }
            // The flag takes the same array.
            let back = convert::parse_resources(&format!("[{}]", texts.join(",")), "*");
            prop_assert_eq!(back.map(|b| b.to_string()), Ok(all.to_string()));
        }
    }
}

#[test]
fn the_flag_is_json_or_text() {
    let read = |text| convert::parse_resources(text, "r").map(|all| all.to_string());
    let reserved = "cpus(reservations: [(STATIC,r)]):1; mem:2";
    assert_eq!(read("cpus:1;mem(*):2"), Ok(reserved.into()));
    let json = r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":1}},
        {"name":"mem","type":"SCALAR","scalar":{"value":2},"role":"*"}]"#;
    assert_eq!(read(json), Ok(reserved.into()));
    for bad in [
        "[{}]",
        "[1]",
        "cpus",
        r#"[{"name":"cpus","type":"SCALAR"}]"#,
        r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":"Infinity"}}]"#,
        "cpus:inf",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn infinite_limits_are_strings_in_json() {
    let task = |limit: &str| {
        let text = format!(
            r#"{{"name":"t","task_id":{{"value":"t"}},"agent_id":{{"value":"a"}},"limits":{{"cpus":{{"value":{limit}}}}}}}"#
        );
        json::to_message::<v1::TaskInfo>(text.as_bytes())
    };
    let infinite = task(r#""Infinity""#).expect("a task");
    assert_eq!(infinite.limits["cpus"].value, f64::INFINITY);
    let text = String::from_utf8(json::from_message(&infinite)).expect("UTF-8");
    assert!(text.contains(r#"{"value":"Infinity"}"#), "{text}");
    assert_eq!(
        json::to_message::<v1::TaskInfo>(text.as_bytes()),
        Ok(infinite)
    );
    let negative = task(r#""-Infinity""#).expect("a task, which is refused later");
    assert_eq!(negative.limits["cpus"].value, f64::NEG_INFINITY);
    // Other words are no numbers, and a bare one is no JSON.
    for bad in [r#""inf""#, r#""infinity""#, r#""NaN""#, "Infinity"] {
        assert!(task(bad).is_err(), "{bad}");
    }
}

#[test]
#[expect(deprecated, reason = "the old form of reservations is what is tested")]
fn the_forms_of_reservations_are_those_of_mesos() {
    let reserved = |text| Resources::parse(text, "*").expect("resources");
    let dynamic = reserved("cpus(reservations: [(DYNAMIC,r,p)]):1");
    let one = |format| convert::to_proto_as(&dynamic, format).remove(0);
    let (post, pre, both) = (one(Format::Post), one(Format::Pre), one(Format::Endpoint));
    assert_eq!((&post.role, &post.reservation), (&None, &None));
    assert_eq!(pre.role.as_deref(), Some("r"));
    let made = pre.reservation.as_ref().expect("a reservation");
    assert_eq!((made.principal.as_deref(), made.r#type), (Some("p"), None));
    assert!(pre.reservations.is_empty());
    assert_eq!(
        (&both.role, &both.reservation),
        (&pre.role, &pre.reservation)
    );
    assert_eq!(both.reservations, post.reservations);
    let plain = convert::to_proto_as(&reserved("cpus:1"), Format::Endpoint).remove(0);
    assert_eq!(plain.role.as_deref(), Some("*"));
}

#[test]
#[expect(deprecated, reason = "the old form of reservations is what is tested")]
fn mistakes_are_named() {
    let cpus = |value: f64| v1::Resource {
        name: "cpus".into(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    };
    let reserved = |role: &str| v1::resource::ReservationInfo {
        r#type: Some(v1::resource::reservation_info::Type::Dynamic.into()),
        role: Some(role.into()),
        ..Default::default()
    };
    let range = |begin, end| v1::value::Range { begin, end };
    let ports = |range| v1::Resource {
        name: "ports".into(),
        r#type: v1::value::Type::Ranges.into(),
        ranges: Some(v1::value::Ranges { range }),
        ..Default::default()
    };
    let said = |resource: v1::Resource| {
        let error = convert::resources(&[resource]).expect_err("a mistake");
        error.to_string()
    };
    // Recorded.
    assert_eq!(
        said(cpus(-1.0)),
        "Resource 'cpus:-1' is invalid: Invalid scalar resource: value <= 0"
    );
    assert_eq!(
        said(cpus(0.0001)),
        "Resource 'cpus:0' is invalid: Invalid scalar resource: value <= 0"
    );
    assert_eq!(convert::resources(&[cpus(0.0)]), Ok(Resources::new()));
    assert_eq!(
        said(v1::Resource {
            reservations: vec![reserved("*")],
            ..cpus(1.0)
        }),
        "Resource 'cpus(reservations: [(DYNAMIC,*)]):1' is invalid: \
         Invalid reservation: role \"*\" cannot be reserved"
    );
    // From Mesos' source.
    let ends = |resource, end: &str| {
        let said = said(resource);
        assert!(said.ends_with(end), "{said}");
    };
    ends(
        v1::Resource {
            name: String::new(),
            ..cpus(1.0)
        },
        "Empty resource name",
    );
    ends(
        v1::Resource {
            scalar: None,
            ..cpus(1.0)
        },
        "Invalid scalar resource",
    );
    ends(ports(vec![range(2, 1)]), "begin > end");
    ends(ports(vec![range(5, 9), range(1, 5)]), "overlapping ranges");
    ends(
        v1::Resource {
            role: Some("a//b".into()),
            ..cpus(1.0)
        },
        "two adjacent slashes",
    );
    ends(
        v1::Resource {
            disk: Some(Default::default()),
            ..cpus(1.0)
        },
        "DiskInfo should not be set for cpus resource",
    );
    ends(
        v1::Resource {
            reservations: vec![reserved("a"), reserved("b")],
            ..cpus(1.0)
        },
        "role 'b' is not a refined role of 'a'",
    );
}

#[test]
fn nested_containers_and_attributes() {
    let id = ContainerId::new("a").child("b");
    assert_eq!(ContainerId::from(&v1::ContainerId::from(&id)), id);
    let text = "rack:abc;level:10;keys:[1000-1500]";
    let attributes = tepui_model::Attributes::parse(text).expect("attributes");
    let messages: Vec<v1::Attribute> = attributes.0.iter().map(Into::into).collect();
    assert_eq!(convert::attributes(&messages), Ok(attributes));
}
