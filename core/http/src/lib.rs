//! HTTP server and client: listeners, content negotiation, streams.
