//! What isolators are told of a container, and the same the other way.

use std::path::Path;

use prost::Message;
use tepui_model::resources::{Resources, Scalar};
use tepui_module_proto::isolator as messages;
use tepui_proto::{
    convert,
    v1::{
        self,
        environment::{Variable, variable},
    },
};

use crate::containerizer::Container;
use crate::{Class, ContainerConfig, Limit, Limits, nested};

/// A container as isolators see it.
pub(crate) fn isolator_config(
    config: &ContainerConfig,
    parent: Option<&Container>,
    sandbox_directory: &Path,
) -> messages::ContainerConfig {
    let plain = config.environment.iter().map(|(name, value)| Variable {
        name: name.clone(),
        value: Some(value.clone()),
        ..Default::default()
    });
    let secret = config.secrets.iter().map(|(name, secret)| Variable {
        name: name.clone(),
        r#type: Some(variable::Type::Secret.into()),
        secret: Some(secret.clone()),
        ..Default::default()
    });
    let environment = v1::Environment {
        variables: plain.chain(secret).collect(),
    };
    let run = config.command.as_ref();
    let command = v1::CommandInfo {
        shell: run.map(|command| command.shell),
        value: run.map(|command| command.value.clone()),
        arguments: run.map_or_else(Vec::new, |command| command.arguments.clone()),
        environment: Some(environment),
        ..Default::default()
    };
    let (class, standalone) = match config.class {
        Class::Task => (messages::ContainerClass::Default, false),
        Class::Standalone => (messages::ContainerClass::Default, true),
        Class::Debug => (messages::ContainerClass::Debug, false),
    };
    let of_parent = parent.and_then(|parent| parent.config.user.clone());
    messages::ContainerConfig {
        id: config.id.to_string(),
        class: class.into(),
        standalone,
        user: config.user.clone().or(of_parent),
        sandbox: config.sandbox.to_string_lossy().into_owned(),
        sandbox_inside: nested::seen_inside(config, parent, sandbox_directory),
        command_info: command.encode_to_vec(),
        container_info: config
            .container
            .as_ref()
            .map(Message::encode_to_vec)
            .unwrap_or_default(),
        resources: encode_resources(&config.resources),
        limits: encode_limits(&config.limits),
        checkpoint: config.checkpoint,
        share_cgroups: config.id.parent.is_some() && config.share_cgroups,
        command_task: config.is_command_task,
        ..Default::default()
    }
}

/// Says where the root of a container is, if its plan gives it one, and where its sandbox is in that.
pub(crate) fn tell_of_root(
    config: &mut messages::ContainerConfig,
    plan: &messages::LaunchPlan,
    sandbox_directory: &Path,
) {
    if let Some(rootfs) = &plan.rootfs {
        config.rootfs = Some(rootfs.clone());
        config.sandbox_inside = sandbox_directory.to_string_lossy().into_owned();
    }
}

pub(crate) fn encode_resources(resources: &Resources) -> Vec<Vec<u8>> {
    convert::to_proto(resources)
        .iter()
        .map(Message::encode_to_vec)
        .collect()
}

pub(crate) fn encode_limits(limits: &Limits) -> Vec<messages::Limit> {
    let encode = |(name, limit): (&String, &Limit)| match limit {
        Limit::Infinite => messages::Limit {
            name: name.clone(),
            amount: 0,
            infinite: true,
        },
        Limit::Amount(amount) => messages::Limit {
            name: name.clone(),
            amount: amount.0,
            infinite: false,
        },
    };
    limits.iter().map(encode).collect()
}

/// What isolators were told, the other way: for containers of an earlier agent process.
pub(crate) fn decode_share(
    resources: &[Vec<u8>],
    limits: &[messages::Limit],
) -> (Resources, Limits) {
    let resources: Vec<v1::Resource> = resources
        .iter()
        .filter_map(|bytes| v1::Resource::decode(&**bytes).ok())
        .collect();
    let decode = |limit: &messages::Limit| {
        let amount = if limit.infinite {
            Limit::Infinite
        } else {
            Limit::Amount(Scalar(limit.amount))
        };
        (limit.name.clone(), amount)
    };
    (
        convert::resources(&resources).unwrap_or_default(),
        limits.iter().map(decode).collect(),
    )
}
