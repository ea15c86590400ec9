//! The first publish: keys chosen or made, a root signed, and published unchanged until it arrives.

use signet_proto::v1::{self, part::Kind};
use signet_trust::{
    KeyId, KeyType, PublicKey, RoleName,
    document::Root,
    edit::{Edit, InitVersions, NewCollection},
    pin::Pin,
    update::Cached,
    verify::{self, Raw, Verified, limit},
};

use super::{Again, Change, CreatedKeys, Done, Outcome, Run, draft::target, unexpected};
use crate::{
    Context,
    args::Rule,
    collection::{
        keys,
        session::{self, Said},
        update,
    },
    failure::{Failure, exit},
    net::NetError,
    ui::text::short_id,
};

/// The keys that the server signs with.
struct ServerKeys {
    timestamp: PublicKey,
    snapshot: PublicKey,
}

impl Run<'_> {
    /// Creates the collection, or publishes again what did not arrive.
    pub(super) async fn first_publish(
        &mut self,
        ctx: &mut Context,
        cached: &Cached,
        known: &v1::CollectionReply,
    ) -> Result<Outcome, Failure> {
        if matches!(self.change, Change::Remove { .. }) {
            return Err(update::no_trust_data(self.image, self.server));
        }
        let was_published = known.lineages.iter().any(|lineage| lineage.published);
        let was_seen = cached.timestamp.is_some();
        if (was_published || was_seen) && !self.refetched {
            return Ok(Outcome::Again(Again::Refetch));
        }
        let allowed = ctx.globals.allow.contains(&Rule::Restart);
        if was_seen && !was_published && !allowed {
            self.ask_to_restart(ctx).await?;
        }
        if !self.resume_failed
            && let Some(root) = self.resumable(cached, known)
        {
            self.resuming = true;
            return self.resume(ctx, &root).await;
        }
        let server_keys = self.server_keys().await?;
        let creation = if was_published && !allowed && *self.change != Change::Init {
            // The agent will refuse; nobody is asked for keys before that.
            keys::none()
        } else {
            let root = match self.chosen_before(cached, known) {
                Some(id) if self.new_keys.root.is_none() => keys::existing(&id.to_string()),
                _ => keys::root(&self.keys, self.new_keys, &ctx.ui).await?,
            };
            let targets =
                keys::targets(&self.keys, &self.image.gun, self.new_keys, &ctx.ui).await?;
            keys::fit_in_slots([&root, &targets], self.new_keys)?;
            v1::Creation {
                root: Some(root),
                targets: Some(targets),
                snapshot: None,
            }
        };
        self.create(ctx, creation, server_keys).await
    }

    /// A collection that only this machine's cache remembers: the agent does not know of it.
    async fn ask_to_restart(&self, ctx: &Context) -> Result<(), Failure> {
        let gun = &self.image.gun;
        let consequence = "everyone who pulled this repository before will be refused";
        if *self.change == Change::Init {
            ctx.ui.say(format_args!(
                "Trust data of {gun} was published before, but the server has none now."
            ));
            let question = format!("Create it anew? ({consequence})");
            if ctx.globals.yes || ctx.ui.confirm(&question).await? {
                return Ok(());
            }
            return Err(Failure::new(
                exit::REFUSED,
                "declined",
                "nothing was created",
            ));
        }
        Err(Failure::new(
            exit::REFUSED,
            "guard.restart",
            format!(
                "{} does not have trust data for {gun}, but it had when this machine last looked: \
                 it was deleted, this is another server, or an attack",
                self.server.host()
            ),
        )
        .fix(format!("--allow restart creates it anew ({consequence})"))
        .rule("restart"))
    }

    async fn server_keys(&self) -> Result<ServerKeys, Failure> {
        let explain = |error: NetError| {
            match error {
            NetError::Missing { .. } => Failure::new(
                exit::FAILED,
                "net.not_the_service",
                format!("{} is not a trust server: it has no keys to offer", self.server.url()),
            )
            .fix("give the address of the notary server with --server or DOCKER_CONTENT_TRUST_SERVER"),
            other => other.into(),
        }
        };
        Ok(ServerKeys {
            timestamp: self
                .server
                .key(&RoleName::Timestamp)
                .await
                .map_err(explain)?,
            snapshot: self
                .server
                .key(&RoleName::Snapshot)
                .await
                .map_err(explain)?,
        })
    }

    /// The cached root, where it is one that was signed here and never arrived.
    fn unpublished(&self, cached: &Cached, known: &v1::CollectionReply) -> Option<Verified<Root>> {
        let wire = cached.root.clone().filter(|_| cached.timestamp.is_none())?;
        let raw = Raw::<Root>::parse(wire, limit::ROLE).ok()?;
        let root = verify::first_root(raw, &self.image.gun, &Pin::FirstUse, update::now()).ok()?;
        let id = root.content_hash();
        let never_arrived = |lineage: &v1::Lineage| lineage.id == id && !lineage.published;
        known.lineages.iter().any(never_arrived).then_some(root)
    }

    /// The root key of a run that did not get through: what was chosen for it is not asked again,
    /// even where its root cannot be published again because the server offers other keys now.
    fn chosen_before(&self, cached: &Cached, known: &v1::CollectionReply) -> Option<KeyId> {
        let root = self.unpublished(cached, known)?;
        let listed = root.doc().roles.get(&RoleName::Root)?.key_ids.first()?;
        let id = root.doc().keys.get(listed)?.canonical_id().ok()?;
        self.held.contains(&id).then_some(id)
    }

    /// The root of [`Run::unpublished`], where the targets key that it names is still at hand. The
    /// server's cannot be compared: until something is published it makes new ones whenever it is
    /// asked (notary `server/timestamp`, `GetOrCreateTimestampKey`), and keeps the old ones.
    fn resumable(&self, cached: &Cached, known: &v1::CollectionReply) -> Option<Verified<Root>> {
        let root = self.unpublished(cached, known)?;
        let lists = |role: &RoleName, wanted: &dyn Fn(&KeyId) -> bool| {
            let listed = root
                .doc()
                .roles
                .get(role)
                .into_iter()
                .flat_map(|keys| &keys.key_ids);
            listed
                .filter_map(|id| root.doc().keys.get(id)?.canonical_id().ok())
                .any(|id| wanted(&id))
        };
        let is_held = |id: &KeyId| self.held.contains(id);
        let is_named = |id: &KeyId| match &self.new_keys.root {
            None => true,
            Some(name) => {
                keys::find_root(&self.keys, name).is_ok_and(|key| key.key_id == id.to_string())
            }
        };
        let usable = lists(&RoleName::Root, &is_named) && lists(&RoleName::Targets, &is_held);
        usable.then_some(root)
    }

    /// Publishes a root that was signed before, unchanged, with fresh targets.
    async fn resume(
        &mut self,
        ctx: &mut Context,
        root: &Verified<Root>,
    ) -> Result<Outcome, Failure> {
        ctx.ui.say(format_args!(
            "The trust of {} was created before, but never reached the server: publishing it again.",
            self.image.gun
        ));
        let wire = root.wire().to_vec();
        let mut edit = Edit::resume_init(self.image.gun.clone(), wire, 1, update::now())
            .map_err(|error| self.explain(&error))?;
        self.add_first_tag(&mut edit)?;
        let requests = self.requests(&edit, &|id: &KeyId| self.held.contains(id))?;
        // The root is signed already: it goes along as what the agent released, and only what is new
        // asks for a signature, so that no root key is needed.
        let known = v1::CollectionReply::default();
        let part = self.part(Kind::Root, &RoleName::Root, root, &known);
        let start = v1::Start {
            base: Some(v1::Base {
                parts: vec![part.head],
                released: Vec::new(),
            }),
            step: Some(session::step(&requests)),
            ..self.start(ctx)
        };
        let payloads = requests.iter().map(session::payload);
        let inline = part.inline.into_iter().chain(payloads).collect();
        let mut done = Done {
            created: Some(created(root)),
            ..Done::default()
        };
        match self
            .sign_first_step(ctx, start, inline, &mut edit, &requests, &mut done)
            .await?
        {
            Some(again) => Ok(Outcome::Again(again)),
            None => self.finish(ctx, edit, done).await,
        }
    }

    async fn create(
        &mut self,
        ctx: &mut Context,
        creation: v1::Creation,
        server_keys: ServerKeys,
    ) -> Result<Outcome, Failure> {
        let start = v1::Start {
            creation: Some(creation),
            ..self.start(ctx)
        };
        let keys = match self.ask(ctx, start, Vec::new()).await {
            Ok(Said::Created(keys)) => keys,
            Ok(other) => return Err(unexpected(&other)),
            Err(failure) => return self.again_after(failure, &[]).map(Outcome::Again),
        };
        let root = read(keys.root)?;
        let targets = read(keys.targets)?;
        for key in [&root, &targets] {
            self.held.extend(key.canonical_id().ok());
        }
        let mut done = Done {
            created: Some(CreatedKeys {
                root: canonical(&root),
                targets: canonical(&targets),
            }),
            ..Done::default()
        };
        self.say_where(ctx, &done).await;
        let collection = NewCollection {
            root,
            targets,
            snapshot: server_keys.snapshot,
            timestamp: server_keys.timestamp,
            snapshot_is_ours: false,
        };
        let gun = self.image.gun.clone();
        let mut edit = Edit::init(gun, collection, InitVersions::default(), update::now())
            .map_err(|error| self.explain(&error))?;
        self.add_first_tag(&mut edit)?;
        let requests = self.requests(&edit, &|id: &KeyId| self.held.contains(id))?;
        let mut session = self.session.take().ok_or_else(|| {
            Failure::new(
                exit::NO_AGENT,
                "agent_gone",
                "the connection to the agent is closed",
            )
        })?;
        session.step(&requests);
        let said = session.next(ctx).await?;
        self.session = Some(session);
        match said {
            Said::Signed(signatures) => {
                self.take(&mut edit, &requests, &signatures, &mut done)?;
                self.finish(ctx, edit, done).await
            }
            other => Err(unexpected(&other)),
        }
    }

    fn add_first_tag(&self, edit: &mut Edit) -> Result<(), Failure> {
        let Change::Add { tag, digest, size } = self.change else {
            return Ok(());
        };
        edit.add(&RoleName::Targets, tag, target(digest, *size))
            .map_err(|error| self.explain(&error))
    }

    /// Which keys the collection has, and where they lie: one line each.
    async fn say_where(&mut self, ctx: &Context, done: &Done) {
        let Some(created) = &done.created else { return };
        let Ok(listed) = self.agent.list_keys(ctx.docker_dir()).await else {
            return;
        };
        for (role, id) in [("root", &created.root), ("targets", &created.targets)] {
            let is_new = !self.keys.iter().any(|key| key.key_id == *id);
            let Some(key) = listed.keys.iter().find(|key| key.key_id == *id) else {
                continue;
            };
            let what = if is_new { "New" } else { "Using" };
            ctx.ui.say(format_args!(
                "{what} {role} key {} in store {} for {}",
                short_id(id),
                key.store,
                self.image.gun
            ));
        }
        self.keys = listed.keys;
    }
}

/// The keys of a root that was made before.
fn created(root: &Verified<Root>) -> CreatedKeys {
    let first = |role: &RoleName| {
        let id = root
            .doc()
            .roles
            .get(role)
            .and_then(|keys| keys.key_ids.first());
        let key = id.and_then(|id| root.doc().keys.get(id));
        key.map(canonical).unwrap_or_default()
    };
    CreatedKeys {
        root: first(&RoleName::Root),
        targets: first(&RoleName::Targets),
    }
}

fn canonical(key: &PublicKey) -> String {
    key.canonical_id()
        .map(|id| id.to_string())
        .unwrap_or_default()
}

fn read(key: Option<v1::PublicKey>) -> Result<PublicKey, Failure> {
    key.and_then(|key| {
        Some(PublicKey::new(
            KeyType::from_name(&key.key_type)?,
            key.public,
        ))
    })
    .ok_or_else(|| {
        Failure::new(
            exit::FAILED,
            "agent",
            "the agent did not say which keys it made",
        )
    })
}
