//! Pure state machine of the life of one agent.
