//! Public traces, read from small files written here by hand and, where they are present, from the
//! real ones.

mod azure;
mod files;
mod genai;
mod openb;
mod wfformat;
mod write;

use std::path::{Path, PathBuf};

use remora_env::Scenario;
use remora_env::import::{GenaiOptions, ImportError, Imported};
use remora_env::trace::Trace;

const NODES: &str = "\
sn,cpu_milli,memory_mib,gpu,model
plain,32000,262144,0,
big,96000,786432,8,V100M32
";

const PODS: &str = "\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
late,4000,15258,1,220,,BE,Running,90,200,100.0
none,88000,327680,8,1000,,Burstable,Succeeded,10,60,20
spec,16000,32768,1,1000,V100M16|V100M32,LS,Pending,10,40,
cpu,1000,512,0,0,,LS,Failed,5,5,5
";

const REQUESTS: &str = "\
gmt_create,predict_type,predict_status,exec_time_seconds,groupId,checkpoint_model_version_id,num_lora
2024-02-28 23:59:50,TXT_2_IMG,SUCCEED,32.0,G0000,M0001,0
2024-02-29 00:00:10,TXT_2_IMG,PENDING,0.0,G0000,,0
2024-03-01 00:00:00,IMG_2_IMG,FAILED,8.0,G0001,M0000,2
2024-03-01 00:00:00,INPAINTING,PROCESSING,21.0,G0001,M0001,1
";

/// A folder of its own for each test, removed at its end.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), text).expect("a temporary file");
        self.path(name)
    }

    fn openb(&self, nodes: impl AsRef<[u8]>, pods: impl AsRef<[u8]>) -> Result<Imported, ImportError> {
        remora_env::import::openb(&self.file("nodes.csv", nodes), &self.file("pods.csv", pods))
    }

    fn genai(&self, requests: impl AsRef<[u8]>) -> Result<Imported, ImportError> {
        remora_env::import::genai(&self.file("requests.csv", requests), &GenaiOptions::default())
    }

    /// The message of a refusal, without the folder's name.
    fn refusal<T>(&self, result: Result<T, ImportError>) -> String {
        let folder = format!("{}/", self.0.path().display());
        result.err().expect("a refusal").to_string().replace(&folder, "")
    }

    fn names(&self) -> Vec<String> {
        let entries = self.0.path().read_dir().expect("the folder").map(|entry| entry.expect("an entry"));
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// What `Scenario::load` makes of an import that was written.
fn accepted(imported: &Imported) -> Scenario {
    let folder = Folder::new();
    let path = folder.path("imported.toml");
    let trace = imported.write(&path).expect("the files can be written");
    assert_eq!(Trace::read(&trace).expect("the trace is sound"), imported.trace);
    Scenario::load(path.to_str().expect("a temporary path is UTF-8")).expect("the scenario is accepted")
}

/// A file of the shared data, which is no part of the project; `None` where it is not there.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn in_time_order(trace: &Trace) -> bool {
    trace.arrivals().is_sorted_by(|a, b| a.at_s <= b.at_s)
}

/// Tasks that no node could ever run.
fn unplaceable(scenario: &Scenario) -> usize {
    let world = scenario.world(1);
    let cluster = world.initial_cluster();
    let nodes = 0..world.topology.nodes.len() as u32;
    world
        .tasks
        .iter()
        .filter(|planned| !nodes.clone().any(|node| cluster.can_run(&planned.task, node)))
        .count()
}
