//! Leadership of a master that has no peers.
