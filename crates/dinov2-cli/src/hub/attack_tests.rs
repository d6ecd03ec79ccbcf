//! `pull` against a malicious hub or a malicious server in between.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::http::Timeouts;
use super::pull::pull_with;
use super::test_server::{Behaviour, BodyFault, Server};
use super::tests::{Machine, REPOSITORY, fixture, hub, request};
use super::{HubError, PullRequest};

/// Short timeouts, for tests.
const SHORT: Timeouts = Timeouts {
    connect: Duration::from_millis(500),
    idle: Duration::from_millis(300),
    window: Duration::from_millis(500),
};

fn pull_of(machine: &Machine, request: &PullRequest) -> Result<(), HubError> {
    pull_with(&machine.config, request, SHORT, &mut |_| {}).map(drop)
}

/// All files of the test machine, except those in the cache folder of the repository.
fn strays(machine: &Machine) -> BTreeSet<PathBuf> {
    let own = machine.config.cache.join("models--ada--dinov2-tiny");
    machine.all_files().into_iter().filter(|path| !path.starts_with(&own)).collect()
}

#[test]
fn only_the_answer_that_was_checked_is_used() {
    let machine = Machine::new("");
    let victim = machine.root.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    for etag in [victim.display().to_string(), "../../../../victim".to_owned(), "..".to_owned()] {
        for commit in ["../../../../elsewhere", "", "/elsewhere", "main"] {
            let second_face = Some((etag.clone(), commit.to_owned()));
            let server = Server::start(Behaviour { second_face, ..hub() });
            let machine = Machine { config: machine.at(&server.endpoint), ..Machine::new("") };
            pull_of(&machine, &request(REPOSITORY)).unwrap();
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        }
    }
    let model = machine.config.models.join("ada--dinov2-tiny.safetensors");
    assert_eq!(strays(&machine), BTreeSet::from([victim, model]));
}

#[test]
fn announcements_that_are_no_hashes_are_refused() {
    let wrong_commits = ["", "main", "../../x", "/tmp/x", "0123", "g123456789abcdef0123456789abcdef01234567"];
    for commit in wrong_commits {
        let server = Server::start(Behaviour { announced_commit: Some(commit.to_owned()), ..hub() });
        let machine = Machine::new(&server.endpoint);
        let error = pull_of(&machine, &request(REPOSITORY)).unwrap_err();
        assert!(matches!(error, HubError::Protocol { .. }), "{commit:?}: {error}");
        assert!(machine.all_files().is_empty(), "{commit:?}");
    }
    for etag in ["", "../../../evil", "/tmp/evil", "a b"] {
        let server = Server::start(Behaviour { announced_etag: Some(etag.to_owned()), ..hub() });
        let machine = Machine::new(&server.endpoint);
        let error = pull_of(&machine, &request(REPOSITORY)).unwrap_err();
        assert!(matches!(error, HubError::Protocol { .. }), "{etag:?}: {error}");
        assert!(machine.all_files().is_empty(), "{etag:?}");
    }
}

#[test]
fn token_is_shown_to_the_hub_only() {
    // The hub redirects all requests to another server.
    let elsewhere = Server::start(hub());
    let redirect_all = Some(elsewhere.endpoint.clone());
    let server = Server::start(Behaviour { redirect_all, ..Behaviour::default() });
    let mut machine = Machine::new(&server.endpoint);
    machine.config.token = Some("secret".to_owned());
    pull_of(&machine, &request(REPOSITORY)).unwrap();
    assert!(server.tokens().iter().all(|token| token == "secret") && !server.tokens().is_empty());
    assert!(elsewhere.tokens().is_empty(), "the token went to another host");
    // The hub redirects only the bytes of large files.
    let elsewhere = Server::start(hub());
    let cdn = Some(elsewhere.endpoint.clone());
    let server = Server::start(Behaviour { cdn, token: Some("secret".to_owned()), ..hub() });
    machine.config.endpoint.clone_from(&server.endpoint);
    machine.config.cache.push("other");
    pull_of(&machine, &request(REPOSITORY)).unwrap();
    assert!(!elsewhere.log().is_empty());
    assert!(elsewhere.tokens().is_empty(), "the token went to another host");
}

#[test]
fn body_without_end_is_cut_and_removed() {
    let server = Server::start(Behaviour { body: BodyFault::Endless, ..hub() });
    let machine = Machine::new(&server.endpoint);
    let error = pull_of(&machine, &request(REPOSITORY)).unwrap_err();
    assert!(matches!(&error, HubError::Corrupt { file, .. } if file == "model.safetensors"), "{error}");
    assert!(machine.files("part").is_empty() && machine.files("safetensors").is_empty());
    server.state.lock().unwrap().body = BodyFault::None;
    pull_of(&machine, &request(REPOSITORY)).unwrap();
}

#[test]
fn size_beyond_any_model_is_refused_before_a_byte_moves() {
    let server = Server::start(Behaviour { announced_size: Some(1 << 50), ..hub() });
    let machine = Machine::new(&server.endpoint);
    let error = pull_of(&machine, &request(REPOSITORY)).unwrap_err();
    assert!(matches!(error, HubError::TooLarge { .. }), "{error}");
    assert!(!server.log().iter().any(|line| line.contains("model.safetensors")));
    let mut behaviour = hub();
    behaviour.files.insert(format!("{REPOSITORY}/config.json"), vec![b' '; 2 << 20]);
    let server = Server::start(behaviour);
    let error = pull_of(&Machine::new(&server.endpoint), &request(REPOSITORY)).unwrap_err();
    assert!(matches!(error, HubError::TooLarge { .. }), "{error}");
}

#[test]
fn redirects_end() {
    let server = Server::start(hub());
    server.state.lock().unwrap().redirect_all = Some(server.endpoint.clone());
    let error = pull_of(&Machine::new(&server.endpoint), &request(REPOSITORY)).unwrap_err();
    assert!(error.to_string().contains("at most 5 redirects"), "{error}");
}

#[test]
fn servers_that_fall_silent_are_given_up() {
    for body in [BodyFault::Stalls, BodyFault::Drips] {
        let server = Server::start(Behaviour { body, ..hub() });
        let machine = Machine::new(&server.endpoint);
        let start = Instant::now();
        let error = pull_of(&machine, &request(REPOSITORY)).unwrap_err();
        assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        // The received part is kept; an honest hub sends the rest.
        assert_eq!(machine.files("part").len(), 1);
        server.state.lock().unwrap().body = BodyFault::None;
        pull_of(&machine, &request(REPOSITORY)).unwrap();
    }
}

/// A valid checkpoint of the right size with one other weight.
fn altered_weights() -> Vec<u8> {
    let mut bytes = fixture("model.safetensors");
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    bytes
}

#[test]
fn honest_hub_repairs_what_a_liar_left() {
    let mut liar = hub();
    liar.files.insert(format!("{REPOSITORY}/model.safetensors"), altered_weights());
    let liar = Server::start(liar);
    let machine = Machine::new(&liar.endpoint);
    pull_of(&machine, &request(REPOSITORY)).unwrap();
    let honest = Server::start(hub());
    let machine = Machine { config: machine.at(&honest.endpoint), root: machine.root };
    pull_of(&machine, &request(REPOSITORY)).unwrap();
    let cached = machine.cached("model.safetensors");
    assert_eq!(fs::read(cached).unwrap(), fixture("model.safetensors"));
}

#[test]
fn wrong_beginning_of_a_download_is_fetched_anew() {
    let server = Server::start(Behaviour { cut: Some((3000, usize::MAX)), ..hub() });
    let machine = Machine::new(&server.endpoint);
    pull_of(&machine, &request(REPOSITORY)).unwrap_err();
    let part = &machine.files("part")[0];
    let mut bytes = fs::read(part).unwrap();
    bytes[100] ^= 1;
    fs::write(part, bytes).unwrap();
    server.state.lock().unwrap().cut = None;
    pull_of(&machine, &request(REPOSITORY)).unwrap();
}

#[test]
fn bytes_that_nothing_vouches_for_do_not_stay_when_they_are_useless() {
    // A portal that answers everything with a page, as a hub without hashes would.
    let mut behaviour = hub();
    behaviour.large.clear();
    behaviour.files.insert(format!("{REPOSITORY}/model.safetensors"), b"<html>log in</html>".to_vec());
    let server = Server::start(behaviour);
    let machine = Machine::new(&server.endpoint);
    let error = pull_of(&machine, &request(REPOSITORY)).unwrap_err();
    assert!(matches!(error, HubError::Convert(_)), "{error}");
    assert!(machine.files("safetensors").is_empty());
}

#[test]
fn known_models_are_held_to_their_hash() {
    // The right names and a consistent announcement, other weights.
    let mut behaviour = Behaviour::default();
    for file in ["config.json", "model.safetensors"] {
        behaviour.files.insert(format!("facebook/dinov2-small/{file}"), fixture(file));
    }
    behaviour.large = vec!["facebook/dinov2-small/model.safetensors".to_owned()];
    let server = Server::start(behaviour);
    let machine = Machine::new(&server.endpoint);
    let error = pull_of(&machine, &request("small")).unwrap_err();
    assert!(
        matches!(error, HubError::NotFound { .. }),
        "asked for another commit than the known one: {error}"
    );
    let known = super::known::known("small").unwrap().commit.to_owned();
    server.state.lock().unwrap().announced_commit = Some(known);
    let error = pull_of(&machine, &request("small")).unwrap_err();
    assert!(error.to_string().contains("expected sha256 ae1e99fcefd534ed"), "{error}");
    assert!(machine.files("safetensors").is_empty());
}
