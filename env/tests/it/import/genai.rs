//! The GenAI requests: their columns, the cluster made for them, what is refused, the real trace.

use remora_env::import::{GenaiOptions, genai};
use remora_env::scenario::HomeFile;

use super::{Folder, REQUESTS, accepted, in_time_order, shared, unplaceable};

#[test]
fn genai_requests_become_arrivals_that_read_their_model() {
    let imported = Folder::new().genai(REQUESTS).unwrap();
    let arrivals: Vec<_> =
        imported.trace.arrivals().map(|arrival| serde_json::to_string(arrival).unwrap()).collect();
    insta::assert_snapshot!(arrivals.join("\n"), @r#"
    {"at_s":0.0,"name":"request-00000","cpu_millis":8000,"memory_bytes":34359738368,"accelerators":1,"accelerator_millis":1000,"duration_s":32.0,"image":"diffusion-pipeline","inputs":["M0001"]}
    {"at_s":86410.0,"name":"request-00002","cpu_millis":8000,"memory_bytes":34359738368,"accelerators":1,"accelerator_millis":1000,"duration_s":8.0,"image":"diffusion-pipeline","inputs":["M0000"]}
    {"at_s":86410.0,"name":"request-00003","cpu_millis":8000,"memory_bytes":34359738368,"accelerators":1,"accelerator_millis":1000,"duration_s":21.0,"image":"diffusion-pipeline","inputs":["M0001"]}
    "#);
    insta::assert_snapshot!(imported.notes.join("\n"), @"
    requests: 4; kept: 3
    pending requests, which never ran, left out: 1, of which 1 name no base model
    failed requests, kept with the time that they ran: 1
    requests still processing, kept with the time so far: 1
    requests with a duration of 0 s, kept: 0
    requests earlier than the one above, sorted by gmt_create: 0
    base models: 2; LoRA adapters are not modelled, as the trace does not say which they are
    assumed, as the trace has no cluster: 4 sites, servers on each: 4, gpus in each: 1, GB of disk: 64
    assumed, as the trace has no network: 1000 Mbit/s, 10 ms and price 4 to each site, 10000 Mbit/s and 0.1 ms within
    assumed, as the trace has no sizes: 6.9 GB for each base model, 5 GB for the image; 8000 millicores and 32768 MiB for each request
    recorded gaps between requests are divided by 1
    ");
}

#[test]
fn genai_models_live_in_a_store_that_runs_nothing() {
    let imported = Folder::new().genai(REQUESTS).unwrap();
    let datasets = &imported.scenario.catalogue.datasets;
    let names: Vec<_> = datasets.iter().map(|dataset| dataset.name.as_str()).collect();
    assert_eq!(names, ["M0000", "M0001"]);
    for dataset in datasets {
        assert!(matches!(&dataset.home, HomeFile::Nodes(homes) if *homes == ["model-store"]));
    }
    let world = accepted(&imported).world(1);
    let cluster = world.initial_cluster();
    let able = world.topology.nodes.iter().enumerate();
    let able = able.filter(|(id, _)| cluster.can_run(&world.tasks[0].task, *id as u32));
    let able: Vec<_> = able.map(|(_, node)| node.name.as_str()).collect();
    assert_eq!(able.len(), 16);
    assert!(able.iter().all(|name| name.starts_with("site-")), "{able:?}");
}

#[test]
fn a_speedup_shrinks_gaps_and_nothing_else() {
    let folder = Folder::new();
    let recorded = folder.genai(REQUESTS).unwrap().trace;
    let recorded: Vec<_> = recorded.arrivals().collect();
    let options = GenaiOptions { speedup: 10.0, ..GenaiOptions::default() };
    let faster = genai(&folder.path("requests.csv"), &options).unwrap().trace;
    let faster: Vec<_> = faster.arrivals().collect();
    for (recorded, faster) in recorded.iter().zip(&faster) {
        assert_eq!(faster.at_s, recorded.at_s / 10.0);
        assert_eq!(faster.duration_s, recorded.duration_s);
    }
}

#[test]
fn a_damaged_request_trace_is_reported_with_its_place() {
    let folder = Folder::new();
    let refusal = |from: &str, to: &str| {
        assert!(REQUESTS.contains(from), "{from:?} is not in the sound file");
        folder.refusal(folder.genai(REQUESTS.replacen(from, to, 1)))
    };
    insta::assert_snapshot!(refusal("checkpoint_model_version_id", "model"), @"requests.csv, line 1: the header lacks checkpoint_model_version_id; want the request trace lora_request_trace.csv");
    insta::assert_snapshot!(refusal("02-29", "02-30"), @r#"requests.csv, line 3, column gmt_create: "2024-02-30 00:00:10" is not a date and time such as 2024-11-15 16:57:50"#);
    insta::assert_snapshot!(refusal("02-29 00", "02-29T00"), @r#"requests.csv, line 3, column gmt_create: "2024-02-29T00:00:10" is not a date and time such as 2024-11-15 16:57:50"#);
    insta::assert_snapshot!(refusal("23:59", "24:59"), @r#"requests.csv, line 2, column gmt_create: "2024-02-28 24:59:50" is not a date and time such as 2024-11-15 16:57:50"#);
    insta::assert_snapshot!(refusal("SUCCEED", "DONE"), @r#"requests.csv, line 2, column predict_status: "DONE" is not one of SUCCEED, FAILED, PROCESSING, PENDING"#);
    insta::assert_snapshot!(refusal("32.0", ""), @r#"requests.csv, line 2, column exec_time_seconds: "" is not a number of seconds from 0 to 100000000"#);
    insta::assert_snapshot!(refusal("32.0", "-32.0"), @r#"requests.csv, line 2, column exec_time_seconds: "-32.0" is not a number of seconds from 0 to 100000000"#);
    insta::assert_snapshot!(refusal("M0000", ""), @r#"requests.csv, line 4, column checkpoint_model_version_id: "" is not a base model, which a request that ran has"#);
    // Nothing that is read would tell of the lines that this open quote takes in.
    insta::assert_snapshot!(refusal("M0001,0", "M0001,\"0"), @"requests.csv, line 2, column num_lora: the field goes on over a line end; close its quote");
}

#[test]
fn options_that_make_no_cluster_are_refused() {
    let folder = Folder::new();
    let requests = folder.file("requests.csv", REQUESTS);
    let refusal = |change: fn(&mut GenaiOptions)| {
        let mut options = GenaiOptions::default();
        change(&mut options);
        folder.refusal(genai(&requests, &options))
    };
    insta::assert_snapshot!(refusal(|options| options.sites = 0), @"option sites is 0, want 1 to 1000");
    insta::assert_snapshot!(refusal(|options| options.gpus_per_node = u32::MAX), @"option gpus_per_node is 4294967295, want 1 to 1000");
    insta::assert_snapshot!(refusal(|options| options.model_gb = f64::NAN), @"option model_gb is NaN, want a number from 0.000001 to 1000000");
    insta::assert_snapshot!(refusal(|options| options.uplink_price = -1.0), @"option uplink_price is -1, want a number from 0 to 1000000");
    insta::assert_snapshot!(refusal(|options| options.speedup = 0.0), @"option speedup is 0, want a number from 0.000001 to 1000000");
    insta::assert_snapshot!(refusal(|options| options.disk_gb = 11.0), @"option disk_gb is 11, want at least 12, so that a model and the image fit");
}

#[test]
fn the_smallest_disk_that_is_allowed_runs_every_request() {
    let folder = Folder::new();
    let requests = folder.file("requests.csv", REQUESTS);
    for model_gb in [0.0001, 6.9, 6.9999, 7.0] {
        let disk_gb = (model_gb + 5.01_f64).ceil();
        let options = GenaiOptions { model_gb, disk_gb, ..GenaiOptions::default() };
        assert_eq!(unplaceable(&accepted(&genai(&requests, &options).unwrap())), 0, "{model_gb}");
    }
}

#[test]
fn all_genai_requests_that_ran_come_through() {
    let Some(requests) = shared("alibaba-genai-v2026/lora_request_trace.csv") else { return };
    let imported = genai(&requests, &GenaiOptions::default()).unwrap();
    // 87 with the empty name, which 25 pending requests have.
    assert_eq!(imported.scenario.catalogue.datasets.len(), 86);
    assert_eq!(imported.trace.arrivals().count(), 26_823 - 30);
    assert!(in_time_order(&imported.trace));
    insta::assert_snapshot!(imported.notes.join("\n"), @"
    requests: 26823; kept: 26793
    pending requests, which never ran, left out: 30, of which 25 name no base model
    failed requests, kept with the time that they ran: 398
    requests still processing, kept with the time so far: 3
    requests with a duration of 0 s, kept: 0
    requests earlier than the one above, sorted by gmt_create: 0
    base models: 86; LoRA adapters are not modelled, as the trace does not say which they are
    assumed, as the trace has no cluster: 4 sites, servers on each: 4, gpus in each: 1, GB of disk: 64
    assumed, as the trace has no network: 1000 Mbit/s, 10 ms and price 4 to each site, 10000 Mbit/s and 0.1 ms within
    assumed, as the trace has no sizes: 6.9 GB for each base model, 5 GB for the image; 8000 millicores and 32768 MiB for each request
    recorded gaps between requests are divided by 1
    ");
    assert_eq!(unplaceable(&accepted(&imported)), 0);
}
