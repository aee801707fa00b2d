//! The `#[config]` attribute of the module SDK.
//!
//! It is a crate of its own because procedural macros must be. It adds the derives of serde and schemars with
//! the paths under which the SDK re-exports them, so that an author's crate depends on the SDK only.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{ToTokens, quote};
use syn::{Attribute, Data, DeriveInput, Error, Field, parse_macro_input};

/// Makes a struct (or an enum inside one) the settings of a module.
///
/// It can be read from the configuration and has a JSON schema; keys it does not name are refused; each field and
/// variant must have a doc comment, which is what operators read in the schema. `#[serde(...)]` and
/// `#[schemars(...)]` attributes work inside as usual: `#[serde(default)]` makes a setting optional.
#[proc_macro_attribute]
pub fn config(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    let arguments = Tokens::from(arguments);
    if !arguments.is_empty() {
        return Error::new(Span::call_site(), "#[config] takes no arguments")
            .into_compile_error()
            .into();
    }
    match undocumented(&item) {
        Some(error) => {
            let error = error.into_compile_error();
            quote!(#item #error).into()
        }
        None => quote! {
            #[derive(
                ::tepui_module_sdk::macro_support::serde::Deserialize,
                ::tepui_module_sdk::macro_support::schemars::JsonSchema,
            )]
            #[serde(crate = "::tepui_module_sdk::macro_support::serde", deny_unknown_fields)]
            #[schemars(crate = "::tepui_module_sdk::macro_support::schemars", deny_unknown_fields)]
            #item
        }
        .into(),
    }
}

/// An error at each field or variant that lacks its doc comment.
fn undocumented(item: &DeriveInput) -> Option<Error> {
    let mut errors = Vec::new();
    match &item.data {
        Data::Struct(data) => fields(&data.fields, &mut errors),
        Data::Enum(data) => {
            for variant in &data.variants {
                if !documented(&variant.attrs) {
                    errors.push(missing(&variant.ident));
                }
                if matches!(variant.fields, syn::Fields::Named(_)) {
                    fields(&variant.fields, &mut errors);
                }
            }
        }
        Data::Union(_) => errors.push(Error::new_spanned(
            &item.ident,
            "settings cannot be a union",
        )),
    }
    errors.into_iter().reduce(|mut all, error| {
        all.combine(error);
        all
    })
}

fn fields<'a>(fields: impl IntoIterator<Item = &'a Field>, errors: &mut Vec<Error>) {
    for field in fields {
        if let Some(name) = &field.ident
            && !documented(&field.attrs)
        {
            errors.push(missing(name));
        }
    }
}

fn documented(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("doc"))
}

fn missing(name: &impl ToTokens) -> Error {
    Error::new_spanned(
        name,
        "a setting needs a doc comment: operators read it in the schema",
    )
}
