//! The pipeline: every entity of a node with its owner.

use super::entity::entities;
use super::*;
use crate::net::*;
use std::collections::BTreeMap;

/// An entity and who may change it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Owned<T> {
    /// Who may change it.
    pub owner: Owner,
    /// The entity.
    pub entity: T,
}

/// What every entity type has: a key, and a table in the pipeline.
pub trait PipelineEntity: Sized {
    /// Type of its key.
    type Key: Ord + Clone;
    /// Its key.
    fn key(&self) -> Self::Key;
    /// The pipeline's table of this type.
    fn table(pipeline: &Pipeline) -> &BTreeMap<Self::Key, Owned<Self>>;
}

macro_rules! declare {
    ($(($variant:ident, $type:ident, $key:ident, $table:ident, $name:literal, $make_key:expr)),+ $(,)?) => {
        /// Every entity of a node, by kind and key. A `Pipeline` value is a set of
        /// entities; that they fit together is what [`crate::validate::validate`] says.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Pipeline {
            $(pub(crate) $table: BTreeMap<$key, Owned<$type>>,)+
        }

        impl Pipeline {
            $(
                #[doc = concat!("Every [`", stringify!($type), "`], by key.")]
                pub fn $table(&self) -> impl Iterator<Item = &$type> {
                    self.$table.values().map(|owned| &owned.entity)
                }
            )+

            /// Puts an entity, in place of the one with the same key, and returns that.
            pub fn put(&mut self, owner: Owner, entity: Entity) -> Option<Owned<Entity>> {
                match entity {
                    $(Entity::$variant(entity) => self
                        .$table
                        .insert(PipelineEntity::key(&entity), Owned { owner, entity })
                        .map(|old| Owned { owner: old.owner, entity: Entity::$variant(old.entity) }),)+
                }
            }

            /// Takes an entity out.
            pub fn remove(&mut self, key: &EntityKey) -> Option<Owned<Entity>> {
                match key {
                    $(EntityKey::$variant(key) => self
                        .$table
                        .remove(key)
                        .map(|old| Owned { owner: old.owner, entity: Entity::$variant(old.entity) }),)+
                }
            }

            /// The entity of that key.
            #[must_use]
            pub fn entity(&self, key: &EntityKey) -> Option<Owned<Entity>> {
                match key {
                    $(EntityKey::$variant(key) => self.$table.get(key).map(|old| Owned {
                        owner: old.owner.clone(),
                        entity: Entity::$variant(old.entity.clone()),
                    }),)+
                }
            }

            /// Who owns the entity of that key.
            #[must_use]
            pub fn owner(&self, key: &EntityKey) -> Option<&Owner> {
                match key {
                    $(EntityKey::$variant(key) => self.$table.get(key).map(|old| &old.owner),)+
                }
            }

            /// Whether an equal entity of that key is there.
            #[must_use]
            pub fn holds(&self, entity: &Entity) -> bool {
                match entity {
                    $(Entity::$variant(entity) => self
                        .$table
                        .get(&PipelineEntity::key(entity))
                        .is_some_and(|old| old.entity == *entity),)+
                }
            }

            /// Every key, in dependency order.
            pub fn keys(&self) -> impl Iterator<Item = EntityKey> {
                std::iter::empty()$(.chain(self.$table.keys().cloned().map(EntityKey::$variant)))+
            }

            /// Every entity with its owner, in dependency order.
            pub fn entities(&self) -> impl Iterator<Item = Owned<Entity>> {
                std::iter::empty()$(.chain(self.$table.values().map(|owned| Owned {
                    owner: owned.owner.clone(),
                    entity: Entity::$variant(owned.entity.clone()),
                })))+
            }

            /// How many entities of a kind there are.
            #[must_use]
            pub fn count(&self, kind: EntityKind) -> usize {
                match kind {
                    $(EntityKind::$variant => self.$table.len(),)+
                }
            }
        }
    };
}

entities!(declare);

impl Pipeline {
    /// The entity of type `T` with that key.
    #[must_use]
    pub fn get<T: PipelineEntity + 'static>(&self, key: &T::Key) -> Option<&T> {
        T::table(self).get(key).map(|owned| &owned.entity)
    }

    /// A pipeline of these entities, all of one owner. Of two with the same
    /// key the later one counts.
    #[must_use]
    pub fn from_entities(owner: &Owner, entities: impl IntoIterator<Item = Entity>) -> Self {
        let mut pipeline = Self::default();
        for entity in entities {
            pipeline.put(owner.clone(), entity);
        }
        pipeline
    }

    /// The routing domain of a port's packets: its VRF, or that of an
    /// interface on its bridge is decided per frame; `None` for bridge ports.
    #[must_use]
    pub fn port_vrf(&self, port: &Port) -> Option<&Vrf> {
        match &port.attachment {
            Attachment::Vrf(vrf) => self.get::<Vrf>(vrf),
            Attachment::Bridge(_) | Attachment::Detached => None,
        }
    }
}
