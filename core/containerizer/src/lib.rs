//! Performs the effects of the container state machine.
