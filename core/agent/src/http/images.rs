//! `/images/unused`: what PRUNE_IMAGES would remove. Mesos has nothing like it.

use bytes::Bytes;
use tepui_http::{Request, Response, StatusCode};
use tepui_model::authorization::Action;
use tepui_proto::json::Writer;
use tepui_proto::v1::{Image, image};

use super::Endpoints;

/// Names of images that no container uses, how many layers would go with them, and the bytes that these take of the
/// disk. `?keep=NAME,NAME` are images that would stay.
pub(super) async fn unused(endpoints: &Endpoints, request: &Request) -> Result<Response, Response> {
    let subject = request.subject.as_ref();
    endpoints.require(subject, Action::PruneImages).await?;
    let keep = request.query.get("keep").unwrap_or_default();
    let keep = keep.split(',').filter(|name| !name.is_empty()).map(docker);
    let found = endpoints
        .containers
        .prune_images(keep.collect(), true)
        .await;
    let found = found.map_err(|error| Response::text(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let mut body = Vec::new();
    Writer::new(&mut body).object(|w| {
        w.key("images").array(|w| {
            for image in &found.images {
                w.str(image);
            }
        });
        w.key("layers").u64(found.layers.len() as u64);
        w.key("bytes").u64(found.bytes);
    });
    Ok(Response::jsonp(request, vec![Bytes::from(body)]))
}

fn docker(name: &str) -> Image {
    Image {
        r#type: image::Type::Docker.into(),
        docker: Some(image::Docker {
            name: name.to_owned(),
            ..image::Docker::default()
        }),
        ..Image::default()
    }
}
