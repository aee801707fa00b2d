//! Library of the built-in authorizers.

tepui_module_sdk::export!(
    authorizer: tepui_authorizer_allow_all::AllowAll,
    authorizer: tepui_authorizer_local::Local,
);
