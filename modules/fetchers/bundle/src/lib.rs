//! Library of the built-in fetcher modules.

tepui_module_sdk::export!(fetcher: tepui_fetcher_uri::UriFetcher);
