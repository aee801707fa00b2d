//! Pulls that several containers wait for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use crate::{Error, Image, Progress, Result};

/// How often those who wait are told how far it is.
const TELL: Duration = Duration::from_secs(1);

/// Pulls under way, by what they are for. A pull goes on when nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub struct Pulls(Arc<Mutex<HashMap<String, Pull>>>);

type Outcome = Shared<BoxFuture<'static, Result<Image>>>;

#[derive(Debug, Clone)]
struct Pull {
    outcome: Outcome,
    progress: Arc<Progress>,
}

impl Pulls {
    /// The result of the pull of this key that is under way, or of the one that `begin` begins; `told` is told now and
    /// then how far it is. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// As the pull.
    pub async fn join<F>(
        &self,
        key: String,
        begin: impl FnOnce(Arc<Progress>) -> F,
        told: impl Fn(&Progress),
    ) -> Result<Image>
    where
        F: Future<Output = Result<Image>> + Send + 'static,
    {
        let Pull {
            mut outcome,
            progress,
        } = self.find_or_begin(key, begin);
        loop {
            match tokio::time::timeout(TELL, &mut outcome).await {
                Ok(result) => return result,
                Err(_) => told(&progress),
            }
        }
    }

    fn find_or_begin<F>(&self, key: String, begin: impl FnOnce(Arc<Progress>) -> F) -> Pull
    where
        F: Future<Output = Result<Image>> + Send + 'static,
    {
        let mut pulls = self.all();
        if let Some(pull) = pulls.get(&key) {
            return pull.clone();
        }
        let progress = Arc::new(Progress::default());
        let (all, own, pull) = (self.clone(), key.clone(), begin(progress.clone()));
        let task = tokio::spawn(async move {
            let result = pull.await;
            all.all().remove(&own);
            result
        });
        let ended = |error| Err(Error::Unavailable(format!("the pull ended: {error}")));
        let outcome = task.map(move |result| result.unwrap_or_else(ended));
        let pull = Pull {
            outcome: outcome.boxed().shared(),
            progress,
        };
        pulls.insert(key, pull.clone());
        pull
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Pull>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
