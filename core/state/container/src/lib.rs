//! Pure state machine of the launch, kill and recovery sequence of one container.
