//! `meta/resources.pb`: what operations made of the agent's resources. Replaced as a whole, synced to the disk.

use tepui_containerizer::checkpoint::seal;
use tepui_proto::convert;
use tepui_proto::disk::ResourcesRecord;
use tepui_proto::{Message, Wire};
use tepui_state_agent::ResourceRecord;

use super::files::{decode, read, write_synced};
use super::{Store, StoreError, VERSION};

impl Store {
    /// What was made of the agent's resources; nothing yet if that was never written. If it cannot be read, that is
    /// an error when `strict`, and otherwise the agent has what it is given; the data of its volumes stays.
    pub(crate) fn resources(&mut self, strict: bool) -> Result<ResourceRecord, StoreError> {
        let path = self.paths.resources();
        match self.read_resources() {
            Err(error) if error.is_of_record() && !strict => {
                tracing::error!(%error, "reservations and volumes are lost; the data of the volumes is left where it is");
                self.set_aside(&path)?;
                Ok(ResourceRecord::default())
            }
            read => read,
        }
    }

    fn read_resources(&self) -> Result<ResourceRecord, StoreError> {
        let path = self.paths.resources();
        let Some(bytes) = read(&path)? else {
            return Ok(ResourceRecord::default());
        };
        let record = decode(&path, &bytes, |record: &ResourcesRecord| record.version)?;
        let resources = |messages: &[_]| {
            convert::resources(messages).map_err(|invalid| StoreError::damaged(&path, invalid))
        };
        Ok(ResourceRecord {
            made: resources(&record.made)?,
            removed: resources(&record.removed)?.into_iter().collect(),
            operations: record.operations.into_iter().map(Wire).collect(),
        })
    }

    /// Writes it; when this returns it outlives the machine.
    pub(crate) fn set_resources(&self, record: &ResourceRecord) -> Result<(), StoreError> {
        let operations = record.operations.iter();
        let record = ResourcesRecord {
            version: VERSION,
            made: convert::to_proto(&record.made),
            operations: operations.map(|operation| operation.0.clone()).collect(),
            removed: record.removed.iter().map(Into::into).collect(),
        };
        write_synced(&self.paths.resources(), &seal(record.encode_to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use tepui_model::Resources;
    use tepui_proto::{Wire, v1};
    use tepui_state_agent::ResourceRecord;

    use super::{Store, StoreError};
    use crate::paths::Paths;

    #[test]
    fn a_record_is_read_as_it_was_written_or_kept_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || Store::open(Paths::new(dir.path().to_owned())).expect("a store");
        let mut store = open();
        let nothing = store.resources(true).expect("nothing was written");
        assert_eq!(nothing, ResourceRecord::default());
        let text = "cpus(reservations: [(DYNAMIC,a,p)]):1; disk(reservations: [(STATIC,a)])[v:d]:5";
        let made = Resources::parse(text, "*").expect("resources");
        let record = ResourceRecord {
            removed: made.persistent_volumes().into_iter().collect(),
            made,
            operations: vec![Wire(v1::Operation::default())],
        };
        store.set_resources(&record).expect("space");
        drop(store);
        let mut store = open();
        assert_eq!(store.resources(true).expect("it was written"), record);
        let path = dir.path().join("meta/resources.pb");
        std::fs::write(&path, [8, 9]).expect("space");
        let error = store.resources(true).expect_err("a later version");
        assert!(matches!(error, StoreError::Newer { .. }), "{error}");
        let lost = store.resources(false).expect("it goes on without it");
        assert_eq!(lost, ResourceRecord::default());
        assert!(dir.path().join("meta/damaged/resources.pb.1").exists());
    }
}
