//! The agent link: frames, handshake, sessions.
