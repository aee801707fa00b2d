//! Suite of kinds `leader-contender` and `leader-detector`, for a module that is both.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use tepui_host::kinds::leader::LeaderClient;
use tepui_module_proto::kind;
use tepui_module_proto::leader::{DetectRequest, Method};
use tepui_proto::v1::MasterInfo;
use tokio::time::timeout;

use crate::Subject;
use crate::common::{block_on, common, stays_open};

/// Longer than any session of an election.
const LONG: Duration = Duration::from_secs(60);

/// Checks an election with one candidate: it is detected with its own MasterInfo, holds the candidacy until it
/// withdraws, and may contend again with a later epoch.
pub fn leader(subject: &Subject) -> Result<()> {
    block_on(async {
        let instance = subject.load(kind::LEADER_CONTENDER)?;
        let started = [
            Method::Contend,
            Method::Lost,
            Method::Withdraw,
            Method::Detect,
        ];
        common(&instance, &started.map(|method| method as u32), &[]).await?;
        let client = LeaderClient::new(instance.clone());
        let mut last = 0;
        for _ in 0..2 {
            let none = DetectRequest { previous: None }.encode_to_vec();
            stays_open(&instance, Method::Detect as u32, none)
                .await
                .context("detect without a candidate")?;

            let master = MasterInfo {
                id: "conformance".to_owned(),
                ip: u32::from_ne_bytes([127, 0, 0, 1]),
                port: 5050,
                hostname: Some("localhost".to_owned()),
                ..MasterInfo::default()
            };
            let candidacy = client.contend(master.encode_to_vec()).await?;
            ensure!(
                candidacy.epoch == 0 || candidacy.epoch > last,
                "an epoch that did not grow"
            );
            last = candidacy.epoch;
            let leader = timeout(LONG, client.detect(None))
                .await
                .context("the only candidate does not lead")??;
            let bytes = leader
                .master_info
                .context("a change to no leader, though there was none")?;
            ensure!(
                MasterInfo::decode(&*bytes)? == master,
                "the leader has another MasterInfo than the candidate"
            );
            let seen = DetectRequest {
                previous: Some(bytes.clone()),
            }
            .encode_to_vec();
            stays_open(&instance, Method::Detect as u32, seen)
                .await
                .context("detect of the same leader")?;

            let lost = client.lost(&candidacy);
            tokio::pin!(lost);
            let early = timeout(Duration::from_millis(100), &mut lost).await;
            ensure!(
                early.is_err(),
                "a candidacy was lost while nothing happened"
            );
            client.withdraw(&candidacy).await?;
            timeout(LONG, lost)
                .await
                .context("a candidacy that was withdrawn was not lost")?;
            let after = timeout(LONG, client.detect(Some(&bytes)))
                .await
                .context("the leader stays after withdrawing")??;
            ensure!(
                after.master_info.is_none(),
                "another leader, though there is no other candidate"
            );
        }
        Ok(())
    })
}
