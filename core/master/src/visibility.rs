//! What a viewer may see, decided once for each class and role there is.

use std::collections::BTreeSet;

use bytes::Bytes;
use tepui_model::authorization::{Action, Class, ClassKey, Subject};
use tepui_model::id::Role;
use tepui_proto::Message as _;
use tepui_proto::v1;
use tepui_view::View;
use tepui_view::encode::{Allowed, Visibility, known_roles};

use crate::authorize::{Authorizer, Object};

/// Asks the authorizer about everything in a view.
pub(crate) async fn of(
    authorizer: &dyn Authorizer,
    subject: Option<&Subject>,
    view: &View,
) -> Visibility {
    let flags = authorizer.approver(subject, Action::ViewFlags).await;
    Visibility {
        frameworks: classes(authorizer, subject, view, Action::ViewFramework, |class| {
            &class.user
        })
        .await,
        tasks: classes(authorizer, subject, view, Action::ViewTask, |class| {
            &class.task_user
        })
        .await,
        executors: classes(authorizer, subject, view, Action::ViewExecutor, |class| {
            &class.task_user
        })
        .await,
        roles: roles(authorizer, subject, view).await,
        flags: flags.surely(&Object::default()).await,
    }
}

async fn classes(
    authorizer: &dyn Authorizer,
    subject: Option<&Subject>,
    view: &View,
    action: Action,
    value: fn(&Class) -> &String,
) -> Allowed<ClassKey> {
    let approver = authorizer.approver(subject, action).await;
    match approver.constant() {
        Some(true) => return Allowed::All,
        Some(false) => return Allowed::none(),
        None => {}
    }
    let mut allowed = BTreeSet::new();
    for (key, class) in (0..).zip(&view.classes.list) {
        let object = Object {
            framework_info: framework_info(class),
            ..Object::value(value(class).clone())
        };
        if approver.surely(&object).await {
            allowed.insert(ClassKey(key));
        }
    }
    Allowed::Only(allowed)
}

/// What a class says about its framework, for authorizers that look at frameworks.
fn framework_info(class: &Class) -> Bytes {
    let info = v1::FrameworkInfo {
        user: class.user.clone(),
        principal: class.principal.clone(),
        roles: class.roles.clone(),
        ..Default::default()
    };
    info.encode_to_vec().into()
}

async fn roles(
    authorizer: &dyn Authorizer,
    subject: Option<&Subject>,
    view: &View,
) -> Allowed<Role> {
    let approver = authorizer.approver(subject, Action::ViewRole).await;
    match approver.constant() {
        Some(true) => return Allowed::All,
        Some(false) => return Allowed::none(),
        None => {}
    }
    let mut allowed = BTreeSet::new();
    for role in roles_in(view) {
        if approver.surely(&Object::value(role.as_str())).await {
            allowed.insert(role);
        }
    }
    Allowed::Only(allowed)
}

/// Roles that are known, or that something old names.
fn roles_in(view: &View) -> BTreeSet<Role> {
    let classes = view
        .classes
        .list
        .iter()
        .flat_map(|class| class.roles.iter().map(|role| Role::from(role.as_str())));
    let frameworks = view.frameworks.iter().chain(&view.completed_frameworks);
    let frameworks = frameworks.flat_map(|framework| framework.row.roles.iter().cloned());
    let mut found: BTreeSet<Role> = classes.chain(frameworks).collect();
    // A refined reservation names roles below the one that it was made for: all are known.
    found.extend(known_roles(view));
    found
}
