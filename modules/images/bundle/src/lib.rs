//! Library of the built-in image stores.

tepui_module_sdk::export!(
    image_store: tepui_image_appc::AppcImages,
    image_store: tepui_image_docker::DockerImages,
    image_store: tepui_image_oci::OciImages,
);
