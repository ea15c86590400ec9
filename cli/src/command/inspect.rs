//! `signet inspect`: what `docker trust inspect` shows; with `--json` its JSON, field by field.

use std::collections::BTreeMap;

use serde::Serialize;
use signet_trust::{RoleName, pin::Pin, update::Trusted};

use super::sign;
use crate::{
    Context,
    args::InspectArgs,
    collection::{
        cache::TufCache,
        server,
        tags::{self, REPO_ADMIN, SignedTag, signer_name},
        update::{self, Current, Wanted},
    },
    failure::Failure,
    net::trust_server::Access,
    ui::text::columns,
};

/// Docker's object for one repository (`cli/command/trust/common.go`).
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Repository {
    name: String,
    signed_tags: Vec<Tag>,
    signers: Vec<Signer>,
    administrative_keys: Vec<Signer>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    signed_tag: String,
    digest: String,
    signers: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Signer {
    name: String,
    keys: Vec<Key>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Key {
    #[serde(rename = "ID")]
    id: String,
}

/// Runs it.
pub(crate) async fn run(args: InspectArgs, ctx: &mut Context) -> Result<(), Failure> {
    let image = sign::parse(&args.image)?;
    let remote = server::remote(ctx, &image, Access::Read).await?;
    let cache = TufCache::new(&ctx.places.docker, &image.gun);
    let wanted = Wanted {
        pin: Pin::FirstUse,
        for_write: false,
        chain_from: None,
    };
    let current = update::fetch(&remote.trust, &cache, &image, wanted).await?;
    let Current::Published(trusted, _) = current else {
        return Err(update::no_trust_data(&image, &remote.trust));
    };
    update::announce(ctx, &remote.trust, &trusted);
    let tags: Vec<SignedTag> = tags::all(&trusted)
        .into_iter()
        .filter(|signed| image.tag.as_ref().is_none_or(|tag| *tag == signed.tag))
        .filter(|signed| image.digest.is_none_or(|digest| digest == signed.digest))
        .collect();
    let repository = describe(&args.image, tags, &trusted);
    if ctx.ui.is_json() {
        return print_json(ctx, &repository);
    }
    print(ctx, &repository);
    Ok(())
}

fn describe(name: &str, tags: Vec<SignedTag>, trusted: &Trusted) -> Repository {
    let signed_tags = tags
        .into_iter()
        .map(|signed| Tag {
            signed_tag: signed.tag,
            digest: signed.digest.hex(),
            signers: if signed.signers.is_empty() {
                vec![REPO_ADMIN.to_owned()]
            } else {
                signed.signers
            },
        })
        .collect();
    Repository {
        name: name.to_owned(),
        signed_tags,
        signers: signers(trusted),
        administrative_keys: administrators(trusted),
    }
}

/// Every delegation but `targets/releases`, with canonical key IDs, names falling as docker sorts.
fn signers(trusted: &Trusted) -> Vec<Signer> {
    let mut found: BTreeMap<&str, Vec<Key>> = BTreeMap::new();
    for document in trusted.targets.values() {
        let delegations = &document.doc().delegations;
        for delegation in delegations.roles.iter().flatten() {
            if delegation.name.as_str() == "targets/releases" {
                continue;
            }
            let keys = delegation
                .key_ids
                .iter()
                .flatten()
                .filter_map(|id| delegations.keys.get(id)?.canonical_id().ok())
                .map(|id| Key { id: id.to_string() })
                .collect();
            found.insert(signer_name(&delegation.name), keys);
        }
    }
    found
        .into_iter()
        .rev()
        .map(|(name, keys)| Signer {
            name: name.to_owned(),
            keys,
        })
        .collect()
}

/// Root (certificate IDs, as the document lists them) and targets.
fn administrators(trusted: &Trusted) -> Vec<Signer> {
    [("Root", RoleName::Root), ("Repository", RoleName::Targets)]
        .into_iter()
        .filter_map(|(name, role)| {
            let keys = trusted.root().doc().roles.get(&role)?;
            let keys = keys
                .key_ids
                .iter()
                .map(|id| Key { id: id.to_string() })
                .collect();
            Some(Signer {
                name: name.to_owned(),
                keys,
            })
        })
        .collect()
}

/// Docker's array, indented as docker indents it.
fn print_json(ctx: &Context, repository: &Repository) -> Result<(), Failure> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    [repository]
        .serialize(&mut serializer)
        .expect("strings and lists always print");
    out.push(b'\n');
    ctx.ui.bytes(&out)
}

fn print(ctx: &Context, repository: &Repository) {
    let ui = &ctx.ui;
    let name = &repository.name;
    if repository.signed_tags.is_empty() {
        ui.data(format_args!("\nNo signatures for {name}\n"));
    } else {
        ui.data(format_args!("\nSignatures for {name}\n"));
        let mut rows = vec![
            ["SIGNED TAG", "DIGEST", "SIGNERS"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(repository.signed_tags.iter().map(|tag| {
            vec![
                signet_trust::payload::escape(&tag.signed_tag),
                format!("sha256:{}", tag.digest),
                tag.signers.join(", "),
            ]
        }));
        columns(&rows).into_iter().for_each(|line| ui.data(line));
    }
    if !repository.signers.is_empty() {
        ui.data(format_args!(
            "\nList of signers and their keys for {name}\n"
        ));
        let mut rows = vec![["SIGNER", "KEYS"].map(str::to_owned).to_vec()];
        rows.extend(repository.signers.iter().map(|signer| {
            let keys: Vec<&str> = signer
                .keys
                .iter()
                .map(|key| key.id.get(..12).unwrap_or(&key.id))
                .collect();
            vec![signer.name.clone(), keys.join(", ")]
        }));
        columns(&rows).into_iter().for_each(|line| ui.data(line));
    }
    ui.data(format_args!("\nAdministrative keys for {name}\n"));
    let rows: Vec<Vec<String>> = repository
        .administrative_keys
        .iter()
        .rev()
        .map(|role| {
            let keys: Vec<&str> = role.keys.iter().map(|key| key.id.as_str()).collect();
            vec![format!("  {} Key:", role.name), keys.join(", ")]
        })
        .collect();
    columns(&rows).into_iter().for_each(|line| ui.data(line));
}
