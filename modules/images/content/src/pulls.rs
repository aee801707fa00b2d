//! Pulls that several containers wait for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use crate::{Error, Image, Result};

/// Pulls under way, by what they are for. A pull goes on when nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub struct Pulls(Arc<Mutex<HashMap<String, Pull>>>);

type Pull = Shared<BoxFuture<'static, Result<Image>>>;

impl Pulls {
    /// The result of the pull of this key that is under way, or of this one. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// As the pull.
    pub async fn join(
        &self,
        key: String,
        pull: impl Future<Output = Result<Image>> + Send + 'static,
    ) -> Result<Image> {
        let shared = {
            let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match pulls.get(&key) {
                Some(shared) => shared.clone(),
                None => {
                    let (all, own) = (self.clone(), key.clone());
                    let task = tokio::spawn(async move {
                        let result = pull.await;
                        all.0
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .remove(&own);
                        result
                    });
                    let ended = |error| Err(Error::Unavailable(format!("the pull ended: {error}")));
                    let shared = task
                        .map(move |result| result.unwrap_or_else(ended))
                        .boxed()
                        .shared();
                    pulls.insert(key, shared.clone());
                    shared
                }
            }
        };
        shared.await
    }
}
