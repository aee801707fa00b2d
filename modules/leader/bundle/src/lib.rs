//! Library of the built-in leader modules.

tepui_module_sdk::export!(leader: tepui_leader_standalone::Standalone);
