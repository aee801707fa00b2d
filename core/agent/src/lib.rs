//! Owner of the agent state: sandboxes, updates, endpoints.
