//! Owner of the master state: calls, streams, endpoints.
