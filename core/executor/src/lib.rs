//! What a command executor does, as a pure state machine.
