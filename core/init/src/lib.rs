//! Supervisor and first process of a container.
