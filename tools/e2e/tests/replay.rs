//! Recorded exchanges of Mesos 1.11, replayed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use tepui_e2e::replay::{
    Answer, Exchange, Target, expected_differences, load, recordings, replay, verdict,
};

/// Changes a recorded answer before it is sent.
type Change = fn(&Exchange, &mut Answer);

/// Answers each recorded request with what `change` makes of its recorded answer.
fn canned(exchanges: &[Exchange], change: Change) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let exchanges: Arc<[Exchange]> = exchanges.into();
    std::thread::spawn(move || {
        // The replay asks one thing after the other, in the order of the recordings.
        for (exchange, connection) in exchanges.iter().zip(listener.incoming()) {
            let mut reader = BufReader::new(connection.unwrap());
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let mut answer = exchange.answer.clone();
            change(exchange, &mut answer);
            let is_head = exchange.request.method == "HEAD";
            reader
                .get_mut()
                .write_all(&on_the_wire(&answer, is_head))
                .unwrap();
        }
    });
    address
}

fn packed(answer: &Answer) -> Vec<u8> {
    if answer.header("Content-Encoding").is_none() {
        return answer.body.clone();
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&answer.body).unwrap();
    encoder.finish().unwrap()
}

fn on_the_wire(answer: &Answer, is_head: bool) -> Vec<u8> {
    let body = packed(answer);
    let mut bytes = format!("HTTP/1.1 {} {}\r\n", answer.status, answer.reason).into_bytes();
    for (name, value) in &answer.headers {
        let value = match name.as_str() {
            "Content-Length" => body.len().to_string(),
            _ => value.clone(),
        };
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    if answer.header("Transfer-Encoding") == Some("chunked") {
        for chunk in body.chunks(100) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    } else if !is_head {
        bytes.extend_from_slice(&body);
    }
    bytes
}

/// How many of the recordings differ once `change` was made to their answers.
fn differing(exchanges: &[Exchange], change: Change) -> Vec<String> {
    let address = canned(exchanges, change);
    let target = Target::new(address, vec![address; 2]);
    let outcome = replay(exchanges, &target);
    outcome
        .into_iter()
        .filter_map(|(name, difference)| difference.map(|_| name))
        .collect()
}

#[test]
fn recordings_are_equal_to_themselves_and_to_another_run() {
    let exchanges = load(&recordings()).unwrap();
    assert!(exchanges.len() > 150, "{}", exchanges.len());
    assert_eq!(differing(&exchanges, |_, _| {}), [""; 0]);
    // Another run has other ids, times and addresses, and may order its headers otherwise.
    let another_run = |_: &Exchange, answer: &mut Answer| {
        answer.headers.reverse();
        if let Ok(text) = String::from_utf8(answer.body.clone()) {
            let text = text
                .replace(
                    "2bb699ce-5753-4d4d-ad59-74064e38038a",
                    "0bb699ce-0000-4d4d-ad59-74064e38038b",
                )
                .replace("127.0.0.1:15050", "127.0.0.1:16161")
                .replace("\"version\":\"1.11.0\"", "\"version\":\"1.11.1\"");
            answer.body = text.into_bytes();
        }
    };
    assert_eq!(differing(&exchanges, another_run), [""; 0]);
}

#[test]
fn every_kind_of_change_is_noticed() {
    let all = load(&recordings()).unwrap();
    let bodies: Vec<Exchange> = all
        .iter()
        .filter(|e| e.answer.header("Content-Type") == Some("application/json"))
        .filter(|e| e.answer.body.len() > 60 && e.answer.header("Content-Encoding").is_none())
        .filter(|e| !e.answer.is_stream)
        .cloned()
        .collect();
    assert!(bodies.len() > 30, "{}", bodies.len());
    let names = |exchanges: &[Exchange]| -> Vec<String> {
        exchanges
            .iter()
            .map(|exchange| exchange.name.clone())
            .collect()
    };
    let changes: [(&str, Change); 4] = [
        ("status", |_, answer| answer.status += 1),
        ("reason", |_, answer| answer.reason.push('!')),
        ("header value", |_, answer| {
            for (name, value) in &mut answer.headers {
                if name == "Content-Type" {
                    value.push_str("; charset=utf-8");
                }
            }
        }),
        ("header added", |_, answer| {
            answer.headers.push(("Server".into(), "x".into()))
        }),
    ];
    for (what, change) in changes {
        assert_eq!(differing(&bodies, change), names(&bodies), "{what}");
    }

    // One more space, one key renamed, two members in the other order.
    assert_eq!(
        differing(&bodies, |_, answer| answer.body.push(b' ')),
        names(&bodies)
    );
    let rename = |_: &Exchange, answer: &mut Answer| {
        let place = answer.body.iter().position(|&byte| byte == b'"').unwrap() + 1;
        answer.body[place] ^= 0x20;
    };
    assert_eq!(differing(&bodies, rename), names(&bodies));
    let swap = |_: &Exchange, answer: &mut Answer| {
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        if let serde_json::Value::Object(members) = value {
            let turned: serde_json::Map<_, _> = members.into_iter().rev().collect();
            answer.body = serde_json::to_vec(&turned).unwrap();
        }
    };
    let objects: Vec<Exchange> = bodies
        .iter()
        .filter(|e| {
            let value: serde_json::Value = serde_json::from_slice(&e.answer.body).unwrap();
            value.as_object().is_some_and(|members| members.len() > 1)
        })
        .cloned()
        .collect();
    assert_eq!(differing(&objects, swap), names(&objects));
    let integers = |_: &Exchange, answer: &mut Answer| {
        let text = String::from_utf8(answer.body.clone()).unwrap();
        answer.body = text.replace(".0,", ",").replace(".0}", "}").into_bytes();
    };
    let doubles: Vec<Exchange> = bodies
        .iter()
        .filter(|e| {
            let text = String::from_utf8_lossy(&e.answer.body);
            text.contains(":0.0,") || text.contains(":4.0}")
        })
        .cloned()
        .collect();
    assert!(doubles.len() > 3, "{}", doubles.len());
    assert_eq!(differing(&doubles, integers), names(&doubles));
}

#[test]
fn the_list_of_differences_can_only_shrink() {
    let outcome = [
        ("a/equal.json", None),
        ("a/listed.json", Some("status")),
        ("a/fixed.json", None),
        ("a/broken.json", Some("body")),
    ]
    .map(|(name, difference)| (name.to_owned(), difference.map(str::to_owned)))
    .into();
    let listed = expected_differences(
        "# comment\na/listed.json  not built yet\n\na/fixed.json why\na/absent.json why\n",
    )
    .unwrap();
    assert_eq!(
        verdict(&outcome, &listed).unwrap_err(),
        "a/absent.json: listed in differences.txt, but there is no such recording\n\
         a/broken.json: body\n\
         a/fixed.json: is equal now; take it off differences.txt\n"
    );
    let listed = expected_differences("a/listed.json why\na/broken.json why\n").unwrap();
    verdict(&outcome, &listed).unwrap();
    expected_differences("a/x.json\n").unwrap_err();
    expected_differences("a/x.json why\na/x.json why\n").unwrap_err();
}
