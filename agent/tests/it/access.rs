//! Who may call what: every method with every role, bad tokens, and what the audit log says of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost_types::FileDescriptorSet;
use remora_agent::service::{Clock, Config, METHODS, Rules, first_token};
use remora_agent::storage::{AuditFilter, NewToken, Options, Paging, Role, Storage, Who};
use remora_env::Time;
use remora_policies::by_name;
use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_client::AdminServiceClient;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::server::{Server, small_cluster};

/// What the clock of these tests says, milliseconds.
pub const NOW_MS: i64 = 1_700_000_000_000;

/// A server that asks who calls, and what it keeps.
pub struct Guarded {
    pub server: Server,
    pub storage: Arc<Storage>,
    folder: TempDir,
}

impl Guarded {
    pub async fn start() -> Guarded {
        Guarded::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Guarded {
        let folder = tempfile::tempdir().unwrap();
        let storage = Arc::new(Storage::open(Options::new(folder.path())).await.unwrap());
        let mut config = Config {
            clusters: vec![small_cluster()],
            clock: Clock::new(|| Time(NOW_MS as u64 * 1_000_000)),
            storage: Some(storage.clone()),
            rules: Rules { authenticate: true, ..Rules::default() },
            ..Config::new(by_name("greedy-completion", 0).unwrap())
        };
        change(&mut config);
        Guarded { server: Server::start(config).await, storage, folder }
    }

    pub async fn token(&self, role: Role) -> NewToken {
        self.storage.create_token(role.name(), role, None, &tester()).await.unwrap()
    }

    pub async fn stop(self) {
        self.server.stop().await;
        drop(self.storage);
        drop(self.folder);
    }
}

pub fn tester() -> Who {
    Who { at_ms: NOW_MS, actor: "tester".to_owned(), role: None }
}

/// A request with this header.
pub fn with<T>(message: T, authorization: &str) -> Request<T> {
    let mut request = Request::new(message);
    if !authorization.is_empty() {
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    }
    request
}

pub fn bearer(token: &NewToken) -> String {
    format!("Bearer {}", token.secret)
}

/// Calls a method with an empty message, whatever it takes.
async fn call(channel: &Channel, path: &'static str, authorization: &str) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let request = with((), authorization);
    let answer = client.server_streaming(request, path.parse().unwrap(), ProstCodec::<(), ()>::default());
    let answer = async { answer.await?.into_inner().message().await.map(|_| ()) };
    tokio::time::timeout(Duration::from_secs(20), answer).await.unwrap()
}

#[test]
fn every_method_has_its_role() {
    let sets = [
        remora_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ];
    let mut described = BTreeSet::new();
    for file in sets.iter().flat_map(|&set| FileDescriptorSet::decode(set).unwrap().file) {
        for service in &file.service {
            let names = service.method.iter().map(|method| method.name());
            described.extend(names.map(|name| format!("/{}.{}/{name}", file.package(), service.name())));
        }
    }
    let listed: BTreeSet<_> = METHODS.iter().map(|method| method.path.to_owned()).collect();
    assert_eq!(listed, described);
    assert_eq!(listed.len(), METHODS.len());
}

#[tokio::test]
async fn every_method_wants_its_role() {
    let guarded = Guarded::start().await;
    let channel = guarded.server.channel().await;
    for method in &METHODS {
        let nobody = call(&channel, method.path, "").await.err().map_or(Code::Ok, |status| status.code());
        assert_eq!(nobody == Code::Unauthenticated, method.least.is_some(), "{}: {nobody:?}", method.path);
    }
    for role in Role::ALL {
        let token = guarded.token(role).await;
        for method in &METHODS {
            let answer = call(&channel, method.path, &bearer(&token)).await;
            let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
            let wanted = method.least.unwrap_or(Role::Viewer);
            if role < wanted {
                assert_eq!(code, Code::PermissionDenied, "{role} at {}: {answer:?}", method.path);
                let told = format!("\"{role}\" has the role {role}, and this wants {wanted}");
                assert!(answer.unwrap_err().message().starts_with(&told), "{}", method.path);
            } else {
                let refused = [Code::PermissionDenied, Code::Unauthenticated, Code::Unimplemented];
                assert!(!refused.contains(&code), "{role} at {}: {answer:?}", method.path);
            }
        }
    }
    let status = call(&channel, "/remora.v1.AdminService/Everything", "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    guarded.stop().await;
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let guarded = Guarded::start().await;
    let expired = {
        let early = Who { at_ms: NOW_MS - 10_000, ..tester() };
        let made = guarded.storage.create_token("late", Role::Admin, Some(NOW_MS - 1), &early).await;
        made.unwrap()
    };
    let revoked = guarded.token(Role::Admin).await;
    guarded.storage.revoke_token(&revoked.token.id, &tester()).await.unwrap();
    let good = guarded.token(Role::Admin).await;
    let mut forged = good.secret.clone();
    forged.pop();
    let other = format!("rmr_{}_{}", good.token.id, "0".repeat(64));
    let cases = [
        (String::new(), "who calls? send `authorization: Bearer rmr_…`"),
        (bearer(&expired), "the token has expired; ask an administrator for another"),
        (bearer(&revoked), "the token was revoked; ask an administrator for another"),
        (format!("Bearer {forged}"), "the token is unknown; ask an administrator for another"),
        (format!("Bearer {other}"), "the token is unknown; ask an administrator for another"),
        ("Bearer rmr_".to_owned(), "the token is malformed; want rmr_<id>_<secret>"),
        ("Bearer".to_owned(), "authorization: is no bearer token; want `Bearer rmr_…`"),
        ("Basic cm9vdDpyb290".to_owned(), "authorization: is no bearer token; want `Bearer rmr_…`"),
        (good.secret.clone(), "authorization: is no bearer token; want `Bearer rmr_…`"),
    ];
    let mut client = ClusterServiceClient::new(guarded.server.channel().await);
    for (header, message) in cases {
        let status = client.list(with(wire::ListClustersRequest {}, &header)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, message), "{header}");
    }
    let shown = client.list(with(wire::ListClustersRequest {}, &bearer(&good))).await.unwrap();
    assert_eq!(shown.into_inner().clusters.len(), 1);
    let lower = bearer(&good).replace("Bearer", "bearer");
    client.list(with(wire::ListClustersRequest {}, &lower)).await.unwrap();
    guarded.stop().await;
}

#[tokio::test]
async fn administrators_make_tokens_and_read_who_did_what() {
    let guarded = Guarded::start().await;
    let admin = bearer(&guarded.token(Role::Admin).await);
    let channel = guarded.server.channel().await;
    let mut client = AdminServiceClient::new(channel.clone());
    let make = |role: wire::Role, valid_s| wire::CreateTokenRequest {
        name: "edge".to_owned(),
        role: role.into(),
        valid_s,
    };
    let made = client.create_token(with(make(wire::Role::Operator, Some(60)), &admin)).await.unwrap();
    let made = made.into_inner();
    let token = made.token.unwrap();
    assert_eq!((token.expires_at_ms, token.created_by.as_str()), (NOW_MS + 60_000, "admin"));
    let status = client.create_token(with(make(wire::Role::Unspecified, None), &admin)).await.unwrap_err();
    assert_eq!(status.message(), "role: is missing, want viewer, orchestrator, author, operator or admin");
    let status = client.create_token(with(make(wire::Role::Viewer, Some(0)), &admin)).await.unwrap_err();
    assert_eq!(status.message(), "valid_s: is 0, want a number from 1");

    // What the holder does is theirs.
    let edge = format!("Bearer {}", made.secret);
    let mut clusters = ClusterServiceClient::new(channel.clone());
    let gone = wire::RemoveClusterRequest { id: "small".to_owned() };
    clusters.remove(with(gone.clone(), &edge)).await.unwrap();
    clusters.remove(with(gone, &edge)).await.unwrap_err();
    clusters.register(with(small_cluster(), &edge)).await.unwrap();
    let alias = wire::SetAliasRequest {
        alias: "champion".to_owned(),
        policy: "skippy".to_owned(),
        reason: "to see".to_owned(),
        expected: None,
    };
    let mut policies = PolicyServiceClient::new(channel);
    let change = policies.set_alias(with(alias, &edge)).await.unwrap().into_inner();
    assert_eq!(change.actor, "edge");

    let status = client.list_tokens(with(wire::ListTokensRequest {}, &edge)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let revoke = wire::RevokeTokenRequest { id: token.id.clone() };
    client.revoke_token(with(revoke, &admin)).await.unwrap();
    let unknown = wire::RevokeTokenRequest { id: "attic".to_owned() };
    assert_eq!(client.revoke_token(with(unknown, &admin)).await.unwrap_err().code(), Code::NotFound);
    let listed = client.list_tokens(with(wire::ListTokensRequest {}, &admin)).await.unwrap().into_inner();
    let listed = listed.tokens.iter().find(|listed| listed.id == token.id).unwrap();
    assert_eq!(listed.revoked_at_ms, NOW_MS);

    let request = wire::AuditRequest { limit: Some(7), ..wire::AuditRequest::default() };
    let page = client.audit(with(request, &admin)).await.unwrap().into_inner();
    let told = |entry: &wire::AuditEntry| {
        (entry.actor.clone(), entry.action.clone(), entry.subject.clone(), entry.allowed)
    };
    let entry = |actor: &str, action: &str, subject: &str, allowed| {
        (actor.to_owned(), action.to_owned(), subject.to_owned(), allowed)
    };
    let entries: Vec<_> = page.entries.iter().map(told).collect();
    let expected = [
        entry("admin", "remora.v1.AdminService/ListTokens", "", true),
        entry("admin", "token.revoke", &token.id, true),
        entry("edge", "remora.v1.AdminService/ListTokens", "", false),
        entry("edge", "remora.v1.ClusterService/Register", "small", true),
        entry("edge", "remora.v1.ClusterService/Remove", "small", true),
        entry("admin", "token.create", &token.id, true),
    ];
    for expected in &expected {
        assert_eq!(
            entries.iter().filter(|entry| *entry == expected).count(),
            1,
            "{expected:?} in {entries:?}"
        );
    }
    let secret = made.secret.rsplit('_').next().unwrap();
    assert!(page.entries.iter().all(|entry| !entry.details.contains(secret)));
    let wrong = wire::AuditRequest { page: "attic".to_owned(), limit: None };
    assert_eq!(client.audit(with(wrong, &admin)).await.unwrap_err().code(), Code::InvalidArgument);
    guarded.stop().await;
}

#[tokio::test]
async fn refusals_do_not_flood_the_audit_log() {
    let guarded = Guarded::start().await;
    let mut client = ClusterServiceClient::new(guarded.server.channel().await);
    for _ in 0..300 {
        client.list(wire::ListClustersRequest {}).await.unwrap_err();
    }
    let log = || async {
        let paging = Paging { limit: 1000, newest_first: true, ..Paging::default() };
        guarded.storage.audit_log(AuditFilter::default(), &paging).await.unwrap().items
    };
    let first = log().await;
    assert!((20..150).contains(&first.len()), "{}", first.len());
    // The next entry says how many there were between.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.list(wire::ListClustersRequest {}).await.unwrap_err();
    let last = log().await;
    let unnoted = last[0].details["unnoted_before"].as_u64().unwrap();
    let noted_before: u64 = first.iter().map(|entry| entry.details["unnoted_before"].as_u64().unwrap()).sum();
    assert_eq!(first.len() as u64 + noted_before + unnoted, 300);
    assert_eq!((last[0].who.actor.as_str(), last[0].allowed), ("unknown", false));
    assert_eq!(last[0].details["from"], "127.0.0.1");
    guarded.stop().await;
}

#[tokio::test]
async fn without_storage_there_are_no_tokens() {
    let server = Server::with_small_cluster().await;
    let mut client = AdminServiceClient::new(server.channel().await);
    let status = client.list_tokens(wire::ListTokensRequest {}).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::FailedPrecondition,
            "the service keeps no tokens and no audit log; start it with --data FOLDER"
        )
    );
    server.stop().await;
}

#[tokio::test]
async fn the_first_administrator_gets_a_token_once() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(Options::new(folder.path())).await.unwrap();
    let rules = Rules { authenticate: true, ..Rules::default() };
    assert!(first_token(&Rules::default(), &storage, NOW_MS).await.unwrap().is_none());
    let first = first_token(&rules, &storage, NOW_MS).await.unwrap().unwrap();
    assert_eq!(first.token.role, Role::Admin);
    assert!(storage.authenticate(&first.secret, NOW_MS).is_ok());
    assert!(first_token(&rules, &storage, NOW_MS).await.unwrap().is_none());
    // Nobody could make one any more.
    storage.revoke_token(&first.token.id, &tester()).await.unwrap();
    assert!(first_token(&rules, &storage, NOW_MS).await.unwrap().is_some());
    storage.close().await;
}
