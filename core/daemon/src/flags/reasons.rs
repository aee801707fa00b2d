//! Why a flag of Mesos has no effect here, or is refused.

/// Refused: the site asks for protection that would not be there.
pub(super) const UNPROTECTED: &str =
    "not supported yet, and the site would not be protected as it asks to be";
/// The part that it tunes does not exist yet.
pub(super) const NOT_YET: &str = "not supported yet";
/// The part that it tunes has no counterpart.
pub(super) const NO_SUCH_PART: &str = "there is no such part in Tepui";
/// ZooKeeper comes with high availability.
pub(super) const NO_ZOOKEEPER: &str = "ZooKeeper is not supported yet";
/// There is no election without it.
pub(super) const ONE_MASTER: &str = "ZooKeeper is not supported yet: leave it out, and name this one master to the agents by --master=host:port";
/// The registry is an embedded store.
pub(super) const NO_REPLICATED_LOG: &str =
    "the registry is an embedded store and needs no such setting";
/// The web UI is not there yet.
pub(super) const NO_UI: &str = "there is no web UI yet";
