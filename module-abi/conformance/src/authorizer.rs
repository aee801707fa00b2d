//! Suite of kind `authorizer`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use prost::Message as _;
use tepui_host::Instance;
use tepui_host::kinds::authorizer::{AuthorizerClient, ObjectRef};
use tepui_model::authorization::{Action, Subject as Principal};
use tepui_module_proto::authorizer::{
    Approver, ApproversReply, ApproversRequest, ChangedRequest, CheckReply, CheckRequest, Method,
    Object, ReleaseRequest, approver::Answer,
};
use tepui_module_proto::kind;
use tepui_proto::v1;

use crate::Subject;
use crate::common::{block_on, common, expect, stays_open};
use tepui_module_proto::common::Code;

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));

/// Checks an authorizer: one approver for each action, one bit for each key, the same however it is asked, handles
/// that end with their release, and unknown actions refused.
pub fn authorizer(subject: &Subject) -> Result<()> {
    block_on(async {
        let instance = subject.load(kind::AUTHORIZER)?;
        let started = [Method::Approvers, Method::Check].map(|method| method as u32);
        common(&instance, &started, &[Method::Release as u32]).await?;
        for principal in [None, Some(Principal::principal("somebody")), Some(claims())] {
            approvers(&instance, principal.as_ref()).await?;
            through_client(&instance, principal.as_ref()).await?;
        }
        let changed = ChangedRequest { seen: 0 }.encode_to_vec();
        stays_open(&instance, Method::Changed as u32, changed).await
    })
}

/// A subject without a principal.
fn claims() -> Principal {
    Principal {
        principal: None,
        claims: BTreeMap::from([("group".to_owned(), "web".to_owned())]),
    }
}

async fn approvers(instance: &Instance, principal: Option<&Principal>) -> Result<()> {
    let actions: Vec<u32> = Action::ALL.iter().map(|action| action.number()).collect();
    let first = ask(instance, principal, &actions).await?;
    ensure!(
        first.len() == actions.len(),
        "{} approvers for {} actions",
        first.len(),
        actions.len()
    );
    let again = ask(instance, principal, &actions).await?;
    let mut handles = Vec::new();
    for ((action, one), other) in actions.iter().zip(&first).zip(&again) {
        let name = Action::from_number(*action).map_or("", Action::as_str);
        ensure!(
            one.answer() != Answer::Unspecified,
            "{name}: an approver without an answer"
        );
        ensure!(
            one.answer() == other.answer(),
            "{name}: another class of answer when asked again"
        );
        if matches!(one.answer(), Answer::Always | Answer::Never) {
            continue;
        }
        let (one_by_one, at_once) = (
            keys(instance, one, true).await?,
            keys(instance, other, false).await?,
        );
        ensure!(
            one_by_one == at_once,
            "{name}: keys asked one by one and at once have other answers"
        );
        handles.extend([one.handle, other.handle]);
    }
    if let Some(&released) = handles.first() {
        let request = ReleaseRequest { handles }.encode_to_vec();
        instance.call(Method::Release as u32, &request)?;
        let request = CheckRequest {
            handle: released,
            without_object: true,
            ..CheckRequest::default()
        };
        let answer = instance
            .start(Method::Check as u32, None, TIMEOUT, request.encode_to_vec())
            .await;
        expect(
            Code::NotFound,
            "a check of an approver that was released",
            answer,
        )?;
    }
    let unknown = ask(instance, principal, &[9_999]).await?;
    let refused = unknown.len() == 1 && unknown[0].answer() != Answer::Always;
    ensure!(
        refused,
        "an action from the future must not be allowed to everybody"
    );
    Ok(())
}

async fn ask(
    instance: &Instance,
    principal: Option<&Principal>,
    actions: &[u32],
) -> Result<Vec<Approver>> {
    let subject = principal.map(|subject| tepui_module_proto::authorizer::Subject {
        principal: subject.principal.clone(),
        claims: subject.claims.clone(),
    });
    let request = ApproversRequest {
        subject,
        actions: actions.to_vec(),
    };
    let bytes = instance
        .start(
            Method::Approvers as u32,
            None,
            TIMEOUT,
            request.encode_to_vec(),
        )
        .await?;
    Ok(ApproversReply::decode(&*bytes)?.approvers)
}

/// Answers of an approver for some keys of its class.
async fn keys(instance: &Instance, approver: &Approver, one_by_one: bool) -> Result<Vec<bool>> {
    let users = ["root", "www", "nobody", "", "a/b"];
    let all = match approver.answer() {
        Answer::ByFramework => {
            let framework = |user: &&str| v1::FrameworkInfo {
                user: (*user).to_owned(),
                ..Default::default()
            };
            let objects = users
                .iter()
                .map(framework)
                .map(|framework| framework.encode_to_vec())
                .collect();
            CheckRequest {
                objects,
                ..CheckRequest::default()
            }
        }
        Answer::ByObject => {
            let object = |user: &&str| Object {
                value: Some((*user).to_owned()),
                ..Object::default()
            };
            let objects = users
                .iter()
                .map(object)
                .map(|object| object.encode_to_vec())
                .collect();
            CheckRequest {
                objects,
                ..CheckRequest::default()
            }
        }
        _ => CheckRequest {
            values: users.map(str::to_owned).to_vec(),
            ..CheckRequest::default()
        },
    };
    let all = CheckRequest {
        handle: approver.handle,
        without_object: true,
        ..all
    };
    if !one_by_one {
        return check(instance, &all).await;
    }
    let mut answers = Vec::new();
    let none = || CheckRequest {
        handle: approver.handle,
        ..CheckRequest::default()
    };
    for value in all.values {
        answers.extend(
            check(
                instance,
                &CheckRequest {
                    values: vec![value],
                    ..none()
                },
            )
            .await?,
        );
    }
    for object in all.objects {
        answers.extend(
            check(
                instance,
                &CheckRequest {
                    objects: vec![object],
                    ..none()
                },
            )
            .await?,
        );
    }
    answers.extend(
        check(
            instance,
            &CheckRequest {
                without_object: true,
                ..none()
            },
        )
        .await?,
    );
    Ok(answers)
}

async fn check(instance: &Instance, request: &CheckRequest) -> Result<Vec<bool>> {
    let count = request.values.len() + request.objects.len() + usize::from(request.without_object);
    let bytes = instance
        .start(Method::Check as u32, None, TIMEOUT, request.encode_to_vec())
        .await?;
    let bits = CheckReply::decode(&*bytes)?.approved;
    ensure!(
        bits.len() == count.div_ceil(8),
        "{} bytes of answers for {count} keys",
        bits.len()
    );
    Ok((0..count)
        .map(|i| bits[i / 8] >> (i % 8) & 1 == 1)
        .collect())
}

/// The host's own client, as daemons use it.
async fn through_client(instance: &Instance, principal: Option<&Principal>) -> Result<()> {
    let client = AuthorizerClient::new(instance.clone());
    for action in [
        Action::RunTask,
        Action::RegisterFramework,
        Action::ViewFlags,
    ] {
        let approver = client.approver(principal, action).await?;
        let object = ObjectRef::value("www");
        let first = approver.approved(&object).await?;
        ensure!(
            first == approver.approved(&object).await?,
            "{action}: another answer for the same object"
        );
    }
    Ok(())
}
