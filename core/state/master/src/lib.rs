//! Pure state machine of the cluster as its master sees it.
