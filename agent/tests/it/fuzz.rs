//! Every call with messages that are valid as messages and extreme as requests, and with bytes that are none: no panic,
//! no status that blames the service, and books that balance after each (which the service checks in builds like this).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, MethodDescriptor,
    ReflectMessage, Value,
};
use remora_agent::appcore::apps;
use remora_agent::appcore::executor::process::Processes;
use remora_agent::service::Config;
use remora_agent::storage::{Options, Storage};
use remora_policies::by_name;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

use crate::garbage::Raw;
use crate::server::{Server, dry_run, outcome, request, small_cluster, small_task};
use remora_proto::v1 as wire;

/// Seconds of it in an ordinary run; `REMORA_TEST_FUZZ_S` says otherwise.
const SECONDS: f64 = 4.0;
/// How long an answer that never ends is listened to.
const LISTEN: Duration = Duration::from_millis(10);
/// Messages within messages.
const DEPTH: usize = 5;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Luck(u64);

impl Luck {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

struct Fuzzer {
    luck: Luck,
    /// Names that mean something, and some that do not.
    names: Vec<String>,
}

impl Fuzzer {
    fn new(seed: u64) -> Fuzzer {
        let known = [
            "small",
            "desk",
            "board",
            "cloud",
            "hall",
            "registry",
            "vision",
            "video",
            "labels",
            "detect",
            "nuc",
            "rpi4",
            "amd64",
            "arm64",
            "base:amd64",
            "champion",
            "shadow",
            "candidate",
            "skippy",
            "random",
            "pretrained",
            "because",
            "",
            "x",
            "\u{0}",
            "däsk",
            "desk ",
            "kubelet",
        ];
        let mut names: Vec<String> = known.map(str::to_owned).into();
        names.push("n".repeat(501));
        Fuzzer { luck: Luck(seed), names }
    }

    fn message(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        for field in of.fields() {
            if depth < DEPTH && self.luck.below(3) > 0 {
                let value = self.field(&field, depth);
                message.set_field(&field, value);
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        if field.is_map() {
            let kind = field.kind();
            let entry = kind.as_message().unwrap().map_entry_value_field();
            let entries = (0..self.luck.below(3)).map(|_| {
                let key = MapKey::String(self.luck.one(&self.names));
                (key, self.value(&entry.kind(), depth))
            });
            return Value::Map(entries.collect());
        }
        if field.is_list() {
            return Value::List((0..self.luck.below(4)).map(|_| self.value(&field.kind(), depth)).collect());
        }
        self.value(&field.kind(), depth)
    }

    fn value(&mut self, kind: &Kind, depth: usize) -> Value {
        let numbers =
            [0.0, 1.0, -1.0, 0.5, 1e-300, 1e9, 1e18, f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let wholes = [0, 1, 2, 3, -1, 100, 1000, 1_000_000, i64::MAX, i64::MIN, 1 << 40, 4_000_000_000];
        match kind {
            Kind::Double => Value::F64(self.luck.one(&numbers)),
            Kind::Int64 => Value::I64(self.luck.one(&wholes)),
            Kind::Int32 => Value::I32(self.luck.one(&wholes) as i32),
            Kind::Bool => Value::Bool(self.luck.below(2) == 0),
            Kind::String => Value::String(self.luck.one(&self.names)),
            Kind::Bytes => Value::Bytes(vec![self.luck.next() as u8; self.luck.below(50)].into()),
            Kind::Enum(_) => Value::EnumNumber(self.luck.below(7) as i32 - 1),
            Kind::Message(of) => Value::Message(self.message(of, depth + 1)),
            other => panic!("the contract has no {other:?} yet"),
        }
    }

    /// Changes something somewhere in a message.
    fn mutate(&mut self, message: &mut DynamicMessage, depth: usize) {
        let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
        if fields.is_empty() {
            return;
        }
        let field = self.luck.one(&fields);
        let deeper = field.kind().as_message().is_some() && !field.is_map() && message.has_field(&field);
        if deeper && self.luck.below(4) > 0 {
            match message.get_field_mut(&field) {
                Value::Message(inner) => return self.mutate(inner, depth + 1),
                Value::List(list) if !list.is_empty() => {
                    let at = self.luck.below(list.len());
                    if let Value::Message(inner) = &mut list[at] {
                        return self.mutate(inner, depth + 1);
                    }
                }
                _ => {}
            }
        }
        let value = self.field(&field, depth);
        message.set_field(&field, value);
    }
}

/// Bytes that are hardly a message any more: cut, with bits turned, or nothing but noise.
fn damage(luck: &mut Luck, bytes: &mut Vec<u8>) {
    match luck.below(4) {
        0 => *bytes = (0..luck.below(300)).map(|_| luck.next() as u8).collect(),
        1 => bytes.truncate(luck.below(bytes.len() + 1)),
        _ => {
            for _ in 0..=luck.below(8) {
                if let Some(byte) = (!bytes.is_empty()).then(|| luck.below(bytes.len())) {
                    bytes[byte] ^= 1 << luck.below(8);
                }
            }
        }
    }
}

/// A request that is right, for methods that need one to get anywhere.
fn right(method: &MethodDescriptor, decisions: &[String], luck: &mut Luck) -> Option<Vec<u8>> {
    if method.parent_service().name() == "AppService" {
        return right_of_apps(method.name(), luck);
    }
    let decision = if decisions.is_empty() { "0".to_owned() } else { luck.one(decisions) };
    let update = |change| wire::UpdateClusterRequest {
        cluster_id: "small".to_owned(),
        changes: vec![wire::Change { change: Some(change) }],
        ..wire::UpdateClusterRequest::default()
    };
    let bytes = match method.name() {
        "Register" => small_cluster().encode_to_vec(),
        "Place" | "PlaceStream" => request(small_task()).encode_to_vec(),
        "PlaceBatch" => wire::PlaceBatchRequest { requests: vec![dry_run(small_task()); 2] }.encode_to_vec(),
        "ReportOutcome" => outcome(&decision).encode_to_vec(),
        "Explain" => {
            wire::ExplainRequest { cluster_id: "small".to_owned(), decision_id: decision }.encode_to_vec()
        }
        "Update" | "Follow" => {
            let cluster = small_cluster().cluster.unwrap();
            let node = wire::Node { name: "new".to_owned(), ..cluster.nodes[0].clone() };
            let link = wire::Link { outer: "new".to_owned(), ..cluster.links[0].clone() };
            let task = wire::PlacedTask {
                task: Some(small_task()),
                expected_remaining_s: Some(5.0),
                ..wire::PlacedTask::default()
            };
            let desk = wire::NodeEntered {
                node: Some(wire::Node { cpu_millis: 2000, ..cluster.nodes[0].clone() }),
                links: vec![cluster.links[0].clone()],
                layers: vec!["base:amd64".to_owned()],
            };
            let closet = wire::Link { outer: "closet".to_owned(), ..cluster.links[0].clone() };
            let changes = [
                wire::change::Change::NodeEntered(wire::NodeEntered {
                    node: Some(node),
                    links: vec![link],
                    layers: Vec::new(),
                }),
                wire::change::Change::NodeEntered(desk),
                wire::change::Change::SwitchEntered(wire::SwitchEntered {
                    name: "closet".to_owned(),
                    link: Some(closet),
                }),
                wire::change::Change::ConfirmedDecisionId(decision.clone()),
                wire::change::Change::NodeLeft("new".to_owned()),
                wire::change::Change::Placed(wire::Placed { node: "cloud".to_owned(), task: Some(task) }),
                wire::change::Change::Dataset(wire::Dataset {
                    homes: vec!["cloud".to_owned()],
                    ..cluster.datasets[0].clone()
                }),
                wire::change::Change::EndedDecisionId(decision),
            ];
            update(luck.one(&changes)).encode_to_vec()
        }
        _ => return None,
    };
    Some(bytes)
}

/// Requests to AppCore that are right: about an application whose commands end at once.
fn right_of_apps(method: &str, luck: &mut Luck) -> Option<Vec<u8>> {
    let (app, run) = ("quick".to_owned(), format!("quick.{}", 1 + luck.below(5)));
    let reason = "to see".to_owned();
    let bytes = match method {
        "Register" => {
            wire::RegisterAppRequest { manifest: QUICK.to_owned(), reason, chunk: Vec::new() }.encode_to_vec()
        }
        "Command" => {
            // Retired for good, it would answer nothing any more.
            let command = 1 + luck.below(4) as i32;
            wire::CommandAppRequest { name: app, command, reason }.encode_to_vec()
        }
        "Execute" => {
            wire::ExecuteRequest { app, request_id: String::new(), input: b"x".to_vec() }.encode_to_vec()
        }
        "Notify" => {
            let key = format!("key {}", luck.below(1000));
            let files = vec![wire::DataFile { name: "data".to_owned(), content: b"1".to_vec() }];
            wire::NotifyRequest { app, key, files, ..wire::NotifyRequest::default() }.encode_to_vec()
        }
        "CommandTrigger" => {
            let (trigger, command) = ("hourly".to_owned(), 1 + luck.below(4) as i32);
            let (from_ms, until_ms) = (Some(1_700_000_000_000), Some(1_700_010_000_000));
            wire::CommandTriggerRequest { app, trigger, command, from_ms, until_ms, reason }.encode_to_vec()
        }
        "GetRun" | "RunLog" | "ExportRun" => wire::GetRunRequest { id: run }.encode_to_vec(),
        "CancelRun" => wire::CancelRunRequest { id: run, reason }.encode_to_vec(),
        "RepeatRun" => wire::RepeatRunRequest { id: run, reason }.encode_to_vec(),
        "SetVersionAlias" => {
            let alias = "shadow".to_owned();
            wire::SetVersionAliasRequest { app, alias, version: Some(1), reason }.encode_to_vec()
        }
        _ => return None,
    };
    Some(bytes)
}

const QUICK: &str = "
name = \"quick\"
[execute]
command = [\"true\"]
[learn]
command = [\"sh\", \"-c\", \"echo 1 > $REMORA_OUTPUT/model\"]
[[trigger]]
name = \"data\"
on.data = {}
[[trigger]]
name = \"hourly\"
run = \"execute\"
on.schedule = { cron = \"0 * * * *\" }
";

/// A server with the small cluster, and with applications.
async fn everything(folder: &Path) -> Server {
    let processes = Processes::supervised_by(env!("CARGO_BIN_EXE_remora"));
    let config = Config {
        clusters: vec![small_cluster()],
        storage: Some(Arc::new(Storage::open(Options::new(folder)).await.unwrap())),
        apps: Some(apps::Options::new(folder.join("apps"), processes)),
        ..Config::new(by_name("greedy-completion", 0).unwrap())
    };
    Server::start(config).await
}

async fn ask(
    server: &Server,
    method: &MethodDescriptor,
    messages: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut client = tonic::client::Grpc::new(server.channel().await);
    client.ready().await.unwrap();
    let request = Request::new(tokio_stream::iter(messages));
    let answer = client.streaming(request, PathAndQuery::try_from(path).unwrap(), Raw).await?;
    let mut answers = Vec::new();
    let mut stream = answer.into_inner();
    // A watch goes on for ever.
    while let Ok(next) = tokio::time::timeout(LISTEN, stream.message()).await {
        match next? {
            Some(answer) => answers.push(answer),
            None => break,
        }
    }
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread")]
async fn extreme_requests_are_answered_as_the_contract_says() {
    let seconds =
        std::env::var("REMORA_TEST_FUZZ_S").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let seed = std::env::var("REMORA_TEST_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let folder = tempfile::tempdir().unwrap();
    let server = everything(folder.path()).await;
    let pool = DescriptorPool::decode(remora_proto::FILE_DESCRIPTOR_SET).unwrap();
    let methods: Vec<MethodDescriptor> =
        pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    let mut fuzzer = Fuzzer::new(seed);
    let (mut decisions, mut granted, mut asked, mut undecodable) = (Vec::new(), 0, 0, 0);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < until {
        let method = fuzzer.luck.one(&methods);
        let mut messages = Vec::new();
        for _ in 0..1 + if method.is_client_streaming() { fuzzer.luck.below(3) } else { 0 } {
            let base = right(&method, &decisions, &mut fuzzer.luck).filter(|_| fuzzer.luck.below(4) > 0);
            let message = match base {
                Some(bytes) => {
                    let mut message = DynamicMessage::decode(method.input(), bytes.as_slice()).unwrap();
                    for _ in 0..fuzzer.luck.below(4) {
                        fuzzer.mutate(&mut message, 0);
                    }
                    message
                }
                None => fuzzer.message(&method.input(), 0),
            };
            let mut bytes = message.encode_to_vec();
            if fuzzer.luck.below(4) == 0 {
                damage(&mut fuzzer.luck, &mut bytes);
            }
            messages.push(bytes);
        }
        asked += 1;
        match ask(&server, &method, messages).await {
            Ok(answers) => {
                granted += 1;
                if method.name() == "Place" {
                    let placed = wire::PlaceResponse::decode(answers[0].as_slice()).unwrap();
                    decisions.extend((!placed.decision_id.is_empty()).then_some(placed.decision_id));
                }
            }
            Err(status) => {
                let blamed = [Code::Internal, Code::Unknown, Code::DataLoss, Code::Unavailable];
                // Of bytes that are no message gRPC says so with this code.
                let undecoded =
                    status.code() == Code::Internal && status.message().contains("decode Protobuf message");
                undecodable += u32::from(undecoded);
                assert!(
                    undecoded || !blamed.contains(&status.code()),
                    "{} after {asked} (seed {seed}): {status:?}",
                    method.full_name()
                );
            }
        }
    }
    eprintln!("{asked} requests, {granted} granted, {undecodable} no message");
    assert!(granted > 20, "of {asked} requests {granted} were granted: too few to find anything");
    // It is still the service that it was.
    server.clusters().await.register(small_cluster()).await.unwrap();
    let mut policies =
        remora_proto::v1::policy_service_client::PolicyServiceClient::new(server.channel().await);
    let serving = wire::Serving {
        autonomy: wire::Autonomy::Act.into(),
        alpha: Some(0.5),
        cluster_id: "small".to_owned(),
        ..wire::Serving::default()
    };
    policies
        .set_serving(wire::SetServingRequest { serving: Some(serving), reason: "as before".to_owned() })
        .await
        .unwrap();
    let champion = wire::SetAliasRequest {
        alias: "champion".to_owned(),
        policy: "greedy-completion".to_owned(),
        reason: "as before".to_owned(),
        expected: None,
    };
    policies.set_alias(champion).await.unwrap();
    server.still_answers().await;
    server.stop().await;
}
