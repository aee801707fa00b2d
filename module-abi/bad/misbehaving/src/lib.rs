//! Modules that do, each at one place, what a module should not do: the host refuses or contains them.
//!
//! Built with the SDK as an author would. What the SDK makes impossible is in the crates beside this one.

use std::process;

use tepui_module_sdk::prelude::*;

tepui_module_sdk::export!(
    allocator: PanicInCall,
    allocator: Greedy,
    authorizer: PanicAfterAwait,
    authorizer: HangInStart,
    authorizer: NeverAnswers,
    authorizer: CrashInStart,
    authorizer: InvalidSettings,
    authorizer: PanicInCreate,
    authorizer: HangInCreate,
    authorizer: CrashInCreate,
    authorizer: ExitInCreate,
);

/// Declares an authorizer by what `create` and `approver` do.
macro_rules! authorizer {
    ($(#[$doc:meta])* $type:ident = $name:literal, create $create:block, approver $approver:block) => {
        $(#[$doc])*
        pub struct $type;

        impl Module for $type {
            type Config = NoConfig;
            const NAME: &'static str = $name;

            #[allow(unreachable_code, reason = "some never come to an end")]
            fn create(_: NoConfig, _: Context) -> Result<Self> {
                $create
                Ok(Self)
            }
        }

        impl Authorizer for $type {
            #[allow(unreachable_code, reason = "some never come to an end")]
            async fn approver(&self, _: Option<&Subject>, _: Action) -> Result<Approver> {
                $approver
                Ok(Approver::Always)
            }
        }
    };
}

authorizer! {
    /// Panics when it is polled for the second time.
    PanicAfterAwait = "bad/panic-after-await", create {}, approver {
        time::sleep(Duration::from_millis(1)).await;
        panic!("after an await, as it should")
    }
}

authorizer! {
    /// Keeps the thread that starts a call.
    HangInStart = "bad/hang-in-start", create {}, approver { hang() }
}

authorizer! {
    /// Gives the thread back and never answers.
    NeverAnswers = "bad/never-answers", create {}, approver { std::future::pending::<()>().await }
}

authorizer! {
    /// Ends the process in a call.
    CrashInStart = "bad/crash-in-start", create {}, approver { process::abort() }
}

authorizer! {
    /// Panics when it is made.
    PanicInCreate = "bad/panic-in-create", create { panic!("in create, as it should") }, approver {}
}

authorizer! {
    /// Never ends being made.
    HangInCreate = "bad/hang-in-create", create { hang() }, approver {}
}

authorizer! {
    /// Ends the process when it is made.
    CrashInCreate = "bad/crash-in-create", create { process::abort() }, approver {}
}

authorizer! {
    /// Leaves the process when it is made, as if all were well.
    ExitInCreate = "bad/exit-in-create", create { process::exit(0) }, approver {}
}

fn hang() {
    loop {
        std::thread::park();
    }
}

/// Settings of [`InvalidSettings`].
#[config]
pub struct Settings {
    /// Must be below 10, which the schema does not say.
    level: u32,
}

/// Refuses settings that its schema accepts.
pub struct InvalidSettings;

impl Module for InvalidSettings {
    type Config = Settings;
    const NAME: &'static str = "bad/invalid-settings";

    fn create(settings: Settings, _: Context) -> Result<Self> {
        match settings.level {
            0..10 => Ok(Self),
            level => {
                Err(Failure::invalid(format!("level: {level} is not below 10")).setting("level"))
            }
        }
    }
}

impl Authorizer for InvalidSettings {
    async fn approver(&self, _: Option<&Subject>, _: Action) -> Result<Approver> {
        Ok(Approver::Always)
    }
}

/// Panics in a round.
pub struct PanicInCall;

impl Module for PanicInCall {
    type Config = NoConfig;
    const NAME: &'static str = "bad/panic-in-call";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl Allocator for PanicInCall {
    fn allocate(&mut self, _: &Cluster, _: &Round, _: &mut Proposals<'_>) {
        panic!("in a round, as it should")
    }
}

/// Proposes the total of each agent again and again, whatever is free, and to everybody.
pub struct Greedy;

impl Module for Greedy {
    type Config = NoConfig;
    const NAME: &'static str = "bad/greedy";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl Allocator for Greedy {
    fn allocate(&mut self, cluster: &Cluster, round: &Round, out: &mut Proposals<'_>) {
        for &agent in &round.candidates {
            let Some(total) = cluster.agent(agent).map(|agent| agent.total.clone()) else {
                continue;
            };
            for client in cluster.clients() {
                out.unchecked(client, agent, total.clone());
            }
        }
    }
}
