//! A host that only remembers what it was told, for tests of the kit.

#![allow(dead_code, reason = "each test uses its part")]

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use tepui_module_sdk::macro_support::{HostV1, InstanceV1, RSlice, Reply, RootV1Ref};
use tepui_module_sdk::proto::Message;
use tepui_module_sdk::proto::common::{Code, CreateRequest, Failure};

#[derive(Default)]
pub(crate) struct TestHost {
    completed: Mutex<Vec<(u64, Reply)>>,
    changed: Condvar,
}

unsafe extern "C" fn call(_: *const (), _: u32, _: RSlice<'_, u8>) -> Reply {
    Reply::default()
}

unsafe extern "C" fn complete(ctx: *const (), call: u64, reply: Reply) {
    // SAFETY: the context is the leaked host of `TestHost::leak`.
    let host = unsafe { &*ctx.cast::<TestHost>() };
    host.completed.lock().unwrap().push((call, reply));
    host.changed.notify_all();
}

impl TestHost {
    pub(crate) fn leak() -> &'static Self {
        Box::leak(Box::default())
    }

    pub(crate) fn create(
        &'static self,
        root: RootV1Ref,
        module: &str,
        config: &str,
    ) -> Result<Instance, (Code, Failure)> {
        let request = CreateRequest {
            module: module.to_owned(),
            selected: vec![module.to_owned()],
            config: config.into(),
            daemon: "check".to_owned(),
            ..CreateRequest::default()
        };
        let host = HostV1 {
            ctx: std::ptr::from_ref(self).cast(),
            call,
            complete,
        };
        let made = root.create()(RSlice::from_slice(&request.encode_to_vec()), host).into_result();
        made.map(|table| Instance { table, host: self })
            .map_err(failure)
    }

    /// All completions so far.
    pub(crate) fn completed(&self) -> Vec<u64> {
        self.completed
            .lock()
            .unwrap()
            .iter()
            .map(|(call, _)| *call)
            .collect()
    }

    /// Waits for the completion of a call.
    pub(crate) fn wait(&self, call: u64) -> Reply {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut completed = self.completed.lock().unwrap();
        loop {
            if let Some((_, reply)) = completed.iter().find(|(done, _)| *done == call) {
                return reply.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "call {call} did not complete");
            completed = self.changed.wait_timeout(completed, left).unwrap().0;
        }
    }
}

fn failure(reply: Reply) -> (Code, Failure) {
    let code = Code::try_from(i32::try_from(reply.code).unwrap()).unwrap();
    (code, Failure::decode(&*reply.message.bytes).unwrap())
}

pub(crate) struct Instance {
    table: InstanceV1,
    host: &'static TestHost,
}

impl Instance {
    pub(crate) fn call<M: Message + Default>(
        &self,
        method: u32,
        request: &impl Message,
    ) -> Result<M, (Code, Failure)> {
        let bytes = request.encode_to_vec();
        // SAFETY: the instance is not released before it is dropped.
        read(unsafe { (self.table.call)(self.table.obj, method, RSlice::from_slice(&bytes)) })
    }

    pub(crate) fn start(&self, call: u64, method: u32, request: &impl Message) {
        let message = tepui_module_abi::Message::new(request.encode_to_vec());
        // SAFETY: as above.
        unsafe { (self.table.start)(self.table.obj, call, method, 0, message) };
    }

    pub(crate) fn cancel(&self, call: u64) {
        // SAFETY: as above.
        unsafe { (self.table.cancel)(self.table.obj, call) };
    }

    pub(crate) fn wait<M: Message + Default>(&self, call: u64) -> Result<M, (Code, Failure)> {
        read(self.host.wait(call))
    }

    pub(crate) fn run<M: Message + Default>(
        &self,
        call: u64,
        method: u32,
        request: &impl Message,
    ) -> Result<M, (Code, Failure)> {
        self.start(call, method, request);
        self.wait(call)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: the last call.
        unsafe { (self.table.release)(self.table.obj) };
    }
}

fn read<M: Message + Default>(reply: Reply) -> Result<M, (Code, Failure)> {
    match reply.code {
        0 => Ok(M::decode(&*reply.message.bytes).unwrap()),
        _ => Err(failure(reply)),
    }
}
