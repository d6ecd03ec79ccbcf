//! `pull` against a well-behaved hub on the loopback.

use std::fs;
use std::path::{Path, PathBuf};

use dinov2_weights::Storage;
use tempfile::TempDir;

use sha2::{Digest, Sha256};

use super::test_server::{Behaviour, COMMIT, Server, hex};
use super::{HubConfig, HubError, PullProgress, PullRequest, local_models, pull, pull::Pulled};

pub(super) const REPOSITORY: &str = "ada/dinov2-tiny";

/// A tiny Dinov2 of transformers, from the golden fixtures.
pub(super) fn fixture(file: &str) -> Vec<u8> {
    repository_file(&format!("tests/fixtures/golden/hf_mlp/{file}"))
}

fn repository_file(path: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).expect("fixture")
}

pub(super) fn hub() -> Behaviour {
    let mut behaviour = Behaviour::default();
    for file in ["config.json", "model.safetensors"] {
        behaviour.files.insert(format!("{REPOSITORY}/{file}"), fixture(file));
    }
    behaviour.large = vec![format!("{REPOSITORY}/model.safetensors")];
    behaviour
}

/// A user's machine: an empty cache, an empty model folder.
pub(super) struct Machine {
    pub(super) root: TempDir,
    pub(super) config: HubConfig,
}

impl Machine {
    pub(super) fn new(endpoint: &str) -> Self {
        let root = tempfile::tempdir().expect("temporary folder");
        let folder = root.path().to_str().expect("utf-8").to_owned();
        let config = HubConfig::from_lookup(&|name| match name {
            "HF_ENDPOINT" => Some(endpoint.to_owned()),
            "HF_HOME" => Some(format!("{folder}/hf")),
            "DINOV2_EDGE_MODELS" => Some(format!("{folder}/models")),
            _ => None,
        });
        Self { root, config: config.expect("config") }
    }

    fn pull(&self, name: &str) -> Result<Pulled, HubError> {
        pull(&self.config, &request(name), &mut |_| {})
    }

    /// This machine, asking another hub.
    pub(super) fn at(&self, endpoint: &str) -> HubConfig {
        HubConfig { endpoint: endpoint.to_owned(), ..self.config.clone() }
    }

    /// Where a file of the repository lies in the cache.
    pub(super) fn cached(&self, file: &str) -> PathBuf {
        self.config.cache.join("models--ada--dinov2-tiny/snapshots").join(COMMIT).join(file)
    }

    /// Everything below the machine's folder with this extension.
    pub(super) fn files(&self, extension: &str) -> Vec<PathBuf> {
        let has_extension = |path: &PathBuf| path.extension().is_some_and(|got| got == extension);
        self.all_files().into_iter().filter(has_extension).collect()
    }

    /// Every file below the machine's folder.
    pub(super) fn all_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()) {
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found
    }
}

pub(super) fn request(name: &str) -> PullRequest {
    PullRequest { name: name.to_owned(), revision: None, storage: Storage::F32, output: None }
}

#[test]
fn pull_downloads_converts_and_lists() {
    let server = Server::start(hub());
    let machine = Machine::new(&server.endpoint);
    let (mut last, mut converted) = (None, 0);
    let pulled = pull(&machine.config, &request(REPOSITORY), &mut |progress| match progress {
        PullProgress::Download { file, done_bytes, total_bytes } => {
            last = Some((file.to_owned(), done_bytes, total_bytes));
        }
        PullProgress::Convert(_) => converted += 1,
    })
    .unwrap();
    let size = fixture("model.safetensors").len() as u64;
    assert_eq!(last, Some(("model.safetensors".to_owned(), size, size)));
    assert!(converted > 0);
    assert_eq!(pulled.repository, REPOSITORY);
    assert_eq!((pulled.spec.dim, pulled.spec.depth, pulled.spec.heads), (48, 3, 3));
    assert!(!pulled.from_cache);
    assert_eq!(pulled.path, machine.config.models.join("ada--dinov2-tiny.safetensors"));
    let listed = local_models(&machine.config.models).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].bytes, pulled.bytes);
    let (spec, storage) = listed[0].model.as_ref().unwrap();
    assert_eq!((spec, *storage), (&pulled.spec, Storage::F32));
    // Other tools find the download where hf-hub and huggingface_hub keep it.
    assert_eq!(fs::read(machine.cached("config.json")).unwrap(), fixture("config.json"));
}

#[test]
fn second_pull_downloads_nothing() {
    let server = Server::start(hub());
    let machine = Machine::new(&server.endpoint);
    machine.pull(REPOSITORY).unwrap();
    let before = server.log().len();
    let request = PullRequest { storage: Storage::Int8, ..request(REPOSITORY) };
    let pulled = pull(&machine.config, &request, &mut |_| {}).unwrap();
    assert!(pulled.from_cache && pulled.notes.is_empty());
    assert_eq!(server.log().len(), before);
    assert_eq!(pulled.path, machine.config.models.join("ada--dinov2-tiny-int8.safetensors"));
}

#[test]
fn whole_cache_serves_without_a_hub() {
    let server = Server::start(hub());
    let mut machine = Machine::new(&server.endpoint);
    machine.config.offline = true;
    let error = machine.pull(REPOSITORY).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    machine.config.offline = false;
    machine.pull(REPOSITORY).unwrap();
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    machine.config.endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let pulled = machine.pull(REPOSITORY).unwrap();
    assert!(pulled.from_cache && pulled.notes[0].contains("cannot be reached"));
    machine.config.offline = true;
    assert!(machine.pull(REPOSITORY).unwrap().notes[0].contains("HF_HUB_OFFLINE"));
    // Settings that may be missing are no reason to guess.
    for path in machine.all_files().iter().filter(|path| path.ends_with("preprocessor_config.json")) {
        fs::remove_file(path).unwrap();
    }
    assert!(matches!(machine.pull(REPOSITORY), Err(HubError::Offline { .. })));
}

#[test]
fn settings_of_the_source_come_along() {
    let mut behaviour = hub();
    let settings = br#"{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}"#.to_vec();
    behaviour.files.insert(format!("{REPOSITORY}/preprocessor_config.json"), settings);
    let server = Server::start(behaviour);
    let machine = Machine::new(&server.endpoint);
    let pulled = machine.pull(REPOSITORY).unwrap();
    let folder = machine.cached("config.json").parent().unwrap().to_owned();
    let from_folder = pulled.path.with_file_name("direct.safetensors");
    let options = dinov2_weights::ConvertOptions::new(Storage::F32);
    dinov2_weights::convert(&folder, &from_folder, &options, &mut |_| {}).unwrap();
    let [pulled, direct] =
        [&pulled.path, &from_folder].map(|path| dinov2_weights::Model::open(path).unwrap());
    assert_eq!(pulled.metadata().preprocessing, direct.metadata().preprocessing);
    assert_eq!(pulled.metadata().preprocessing.mean, [0.5; 3]);
}

#[test]
fn sharded_checkpoint_is_put_together() {
    let mut behaviour = Behaviour::default();
    let shards = [1, 2, 3].map(|shard| format!("model-0000{shard}-of-00003.safetensors"));
    for file in
        ["config.json", "model.safetensors.index.json"].into_iter().chain(shards.iter().map(String::as_str))
    {
        let bytes =
            repository_file(&format!("crates/dinov2-weights/tests/fixtures/hugging_face_shards/{file}"));
        behaviour.files.insert(format!("{REPOSITORY}/{file}"), bytes);
    }
    behaviour.large = shards.iter().map(|shard| format!("{REPOSITORY}/{shard}")).collect();
    let server = Server::start(behaviour);
    let machine = Machine::new(&server.endpoint);
    let pulled = machine.pull(REPOSITORY).unwrap();
    let from_folder = pulled.path.with_file_name("direct.safetensors");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/dinov2-weights/tests/fixtures/hugging_face_shards");
    let options = dinov2_weights::ConvertOptions::new(Storage::F32);
    dinov2_weights::convert(&folder, &from_folder, &options, &mut |_| {}).unwrap();
    let (got, expected) =
        [&pulled.path, &from_folder].map(|path| dinov2_weights::Model::open(path).unwrap()).into();
    assert_eq!(got.names().collect::<Vec<_>>(), expected.names().collect::<Vec<_>>());
    for name in expected.names() {
        assert_eq!(got.f32(name).unwrap(), expected.f32(name).unwrap(), "{name}");
    }
}

#[test]
fn index_that_names_other_files_is_refused() {
    let mut behaviour = hub();
    behaviour.files.remove(&format!("{REPOSITORY}/model.safetensors"));
    let index = br#"{"weight_map": {"a": "../../../etc/passwd.safetensors"}}"#.to_vec();
    behaviour.files.insert(format!("{REPOSITORY}/model.safetensors.index.json"), index);
    let server = Server::start(behaviour);
    let error = Machine::new(&server.endpoint).pull(REPOSITORY).unwrap_err();
    assert!(error.to_string().starts_with("index: expected names of .safetensors files"), "{error}");
}

#[test]
fn broken_transfer_is_resumed_within_a_pull() {
    let server = Server::start(Behaviour { cut: Some((5000, 2)), ..hub() });
    let machine = Machine::new(&server.endpoint);
    machine.pull(REPOSITORY).unwrap();
    let path = format!("/cdn/{REPOSITORY}/model.safetensors");
    let bodies: Vec<String> = server.log().into_iter().filter(|line| line.starts_with(&path)).collect();
    for from in [5000, 10000] {
        assert!(bodies.contains(&format!("{path} {from}")), "no request from byte {from}: {bodies:?}");
    }
}

#[test]
fn interrupted_pull_is_resumed_by_the_next() {
    let server = Server::start(Behaviour { cut: Some((3000, usize::MAX)), ..hub() });
    let machine = Machine::new(&server.endpoint);
    let error = machine.pull(REPOSITORY).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert!(machine.files("safetensors").is_empty(), "a model file after a failed pull");
    let part = fs::metadata(&machine.files("part")[0]).unwrap().len();
    assert!(part >= 3000);
    server.state.lock().unwrap().cut = None;
    machine.pull(REPOSITORY).unwrap();
    let wanted = format!("/cdn/{REPOSITORY}/model.safetensors {part}");
    assert!(server.log().contains(&wanted), "no request from byte {part}");
}

#[test]
fn complete_but_unrenamed_part_does_not_block() {
    let server = Server::start(hub());
    let machine = Machine::new(&server.endpoint);
    machine.pull(REPOSITORY).unwrap();
    // As if the process had died between the last byte and the renaming.
    let link = machine.cached("model.safetensors");
    let blob = fs::canonicalize(&link).unwrap();
    let sha256 = blob.file_name().unwrap().to_str().unwrap().to_owned();
    fs::remove_file(link).unwrap();
    fs::rename(&blob, blob.with_file_name(format!("{}.part", hex(&Sha256::digest(sha256))))).unwrap();
    assert!(machine.pull(REPOSITORY).unwrap().from_cache);
}

#[test]
fn wrong_bytes_are_refused_and_removed() {
    let server = Server::start(Behaviour { announced_sha256: Some("ab".repeat(32)), ..hub() });
    let machine = Machine::new(&server.endpoint);
    let error = machine.pull(REPOSITORY).unwrap_err();
    assert!(matches!(&error, HubError::Corrupt { file, .. } if file == "model.safetensors"), "{error}");
    assert!(machine.files("safetensors").is_empty());
    server.state.lock().unwrap().announced_sha256 = None;
    machine.pull(REPOSITORY).unwrap();
}

#[test]
fn damaged_cache_is_repaired_or_refused() {
    let server = Server::start(hub());
    let mut machine = Machine::new(&server.endpoint);
    let pulled = machine.pull(REPOSITORY).unwrap();
    let damage = |machine: &Machine, file: &str| {
        let blob = fs::canonicalize(machine.cached(file)).unwrap();
        let mut bytes = fs::read(&blob).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&blob, bytes).unwrap();
    };
    for file in ["model.safetensors", "config.json"] {
        damage(&machine, file);
        assert!(!machine.pull(REPOSITORY).unwrap().from_cache);
        assert_eq!(fs::read(machine.cached(file)).unwrap(), fixture(file));
    }
    damage(&machine, "model.safetensors");
    machine.config.offline = true;
    let error = machine.pull(REPOSITORY).unwrap_err();
    assert!(matches!(error, HubError::Corrupt { .. }), "{error}");
    assert!(pulled.path.is_file(), "the earlier model file stays");
    machine.config.offline = false;
    machine.pull(REPOSITORY).unwrap();
}

#[test]
fn unknown_repository_and_revision_are_named() {
    let server = Server::start(hub());
    let machine = Machine::new(&server.endpoint);
    let message = machine.pull("nobody/nothing").unwrap_err().to_string();
    assert!(
        message.starts_with("config.json: not found (404) in nobody/nothing at revision main"),
        "{message}"
    );
    let request = PullRequest { revision: Some("v9".to_owned()), ..request(REPOSITORY) };
    let message = pull(&machine.config, &request, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("at revision v9"), "{message}");
    for revision in ["", "../x", "a//b", "a?b", ".git"] {
        let request = PullRequest { revision: Some(revision.to_owned()), ..request.clone() };
        let error = pull(&machine.config, &request, &mut |_| {}).unwrap_err();
        assert!(matches!(error, HubError::Revision(_)), "{revision}: {error}");
    }
}

#[test]
fn gated_repository_asks_for_a_token() {
    let server = Server::start(Behaviour { token: Some("right".to_owned()), ..hub() });
    let mut machine = Machine::new(&server.endpoint);
    let message = machine.pull(REPOSITORY).unwrap_err().to_string();
    assert!(message.contains("refused access (401)") && message.contains("set HF_TOKEN"), "{message}");
    machine.config.token = Some("wrong".to_owned());
    let message = machine.pull(REPOSITORY).unwrap_err().to_string();
    assert!(message.contains("refused access (403)") && message.contains("a token with access"), "{message}");
    machine.config.token = Some("right".to_owned());
    machine.pull(REPOSITORY).unwrap();
}

#[test]
fn nobody_listening_is_said_plainly() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let message = Machine::new(&endpoint).pull(REPOSITORY).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{endpoint} cannot be reached")), "{message}");
}

#[test]
fn moved_repository_is_followed() {
    let moved = Some(("ada/old-name".to_owned(), REPOSITORY.to_owned()));
    let server = Server::start(Behaviour { moved, ..hub() });
    let machine = Machine::new(&server.endpoint);
    assert_eq!(machine.pull("ada/old-name").unwrap().spec.dim, 48);
}

#[test]
fn something_else_than_dinov2_leaves_no_model() {
    let mut behaviour = hub();
    behaviour.files.insert(format!("{REPOSITORY}/config.json"), br#"{"model_type": "bert"}"#.to_vec());
    let server = Server::start(behaviour);
    let machine = Machine::new(&server.endpoint);
    let error = machine.pull(REPOSITORY).unwrap_err();
    assert!(matches!(error, HubError::Convert(_)), "{error}");
    assert!(local_models(&machine.config.models).unwrap().is_empty());
}
