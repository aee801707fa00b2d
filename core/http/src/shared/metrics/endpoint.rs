//! `/metrics/snapshot`.

use std::sync::Arc;

use http::Method;
use tepui_proto::json::Writer;

use super::Metrics;
use crate::authorize::Authorizer;
use crate::request::Request;
use crate::response::Response;
use crate::router::Router;
use crate::shared::{guarded, parse_duration, reads};

impl Metrics {
    pub(crate) fn register(&self, router: &mut Router, authorizer: &Arc<dyn Authorizer>) {
        let metrics = self.clone();
        guarded(
            router,
            authorizer,
            "/metrics/snapshot",
            "/metrics/snapshot",
            move |request: Request| {
                let metrics = metrics.clone();
                async move { metrics.answer(&request).await }
            },
        );
    }

    async fn answer(&self, request: &Request) -> Response {
        if !reads(&request.method) {
            return Response::method_not_allowed(&[Method::GET], &request.method);
        }
        let timeout = match request.query.get("timeout") {
            None => None,
            Some(text) => match parse_duration(text) {
                Ok(timeout) => Some(timeout),
                Err(error) => {
                    return Response::bad_request(format!("Invalid timeout '{text}': {error}.\n"));
                }
            },
        };
        if let Err(refused) = self.pace.turn().await {
            return *refused;
        }
        let samples = self.samples(timeout).await;
        let mut body = Vec::new();
        Writer::new(&mut body).object(|w| {
            for sample in &samples {
                w.key(&sample.name).f64(sample.value);
            }
        });
        Response::jsonp(request, vec![body.into()])
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use http::StatusCode;
    use tokio::time::Instant;

    use super::*;
    use crate::shared::metrics::Sample;

    fn get(query: &str) -> Request {
        Request::new(Method::GET, &format!("/metrics/snapshot{query}"))
    }

    #[tokio::test(start_paused = true)]
    async fn everything_in_order_but_what_comes_too_late() {
        let metrics = Metrics::default();
        metrics.counter("b").increment();
        metrics.counter("b").add(2);
        metrics.gauge("a").set(0.5);
        metrics.source(async || vec![Sample::gauge("c", 7.0)]);
        metrics.source(pending);
        let response = metrics.answer(&get("?timeout=5secs")).await;
        assert_eq!(
            response.body_bytes().unwrap(),
            r#"{"a":0.5,"b":3.0,"c":7.0}"#
        );
        let response = metrics.answer(&get("?timeout=soon")).await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST);
        let text = "Invalid timeout 'soon': Failed to convert '' to number.\n";
        assert_eq!(response.body_bytes().unwrap(), text);
    }

    #[tokio::test(start_paused = true)]
    async fn two_a_second_and_not_too_many_wait() {
        let metrics = Metrics::default();
        let begin = Instant::now();
        for _ in 0..5 {
            assert_eq!(metrics.answer(&get("")).await.status, StatusCode::OK);
        }
        assert_eq!(begin.elapsed(), Duration::from_secs(2));
        let requests = (0..100).map(|_| async { metrics.answer(&get("")).await });
        let answers = futures::future::join_all(requests).await;
        let refused: Vec<_> = answers
            .iter()
            .filter(|answer| answer.status != StatusCode::OK)
            .collect();
        assert_eq!(refused.len(), 100 - 60);
        assert_eq!(refused[0].status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused[0].headers["retry-after"], "30");
    }
}
