//! The openb cluster: its columns, what is refused, the real lists.

use remora_env::import::openb;

use super::{Folder, NODES, PODS, accepted, in_time_order, shared, unplaceable};

#[test]
fn openb_pods_become_arrivals_in_order_of_creation() {
    let imported = Folder::new().openb(NODES, PODS).unwrap();
    let arrivals: Vec<_> =
        imported.trace.arrivals().map(|arrival| serde_json::to_string(arrival).unwrap()).collect();
    insta::assert_snapshot!(arrivals.join("\n"), @r#"
    {"at_s":5.0,"name":"cpu","cpu_millis":1000,"memory_bytes":536870912,"duration_s":0.0}
    {"at_s":10.0,"name":"none","cpu_millis":88000,"memory_bytes":343597383680,"accelerators":8,"accelerator_millis":1000,"duration_s":40.0}
    {"at_s":10.0,"name":"spec","cpu_millis":16000,"memory_bytes":34359738368,"accelerators":1,"accelerator_millis":1000,"accelerator_models":["V100M16","V100M32"],"duration_s":30.0}
    {"at_s":90.0,"name":"late","cpu_millis":4000,"memory_bytes":15999172608,"accelerators":1,"accelerator_millis":220,"duration_s":100.0}
    "#);
    insta::assert_snapshot!(imported.notes.join("\n"), @"
    nodes: 2; with gpus: 1; gpus: 8
    pods: 4, none left out
    assumed, as the trace has no network or disks: 10000 Mbit/s and 0.1 ms for each node, 1000 GB of disk, no time to start a container
    pods never scheduled, for which the duration is deletion_time - creation_time: 1
    pods with a duration of 0 s, kept: 1
    pods deleted in the last second of the list, 200, whose duration the end of the recording may have cut off, kept: 1
    pods earlier than the one above, sorted by creation_time: 2
    ");
}

#[test]
fn openb_nodes_keep_their_names_and_hang_on_the_backbone() {
    let nodes = Folder::new().openb(NODES, PODS).unwrap().scenario.topology.nodes;
    insta::assert_snapshot!(toml::to_string(&nodes[1]).unwrap(), @r#"
    name = "big"
    count = 1
    kind = "v100m32"
    arch = "amd64"
    cpu_millis = 96000
    memory_mib = 786432.0
    disk_gb = 1000.0
    startup_s = 0.0

    [link]
    up_mbps = 10000.0
    latency_ms = 0.1
    price = 1.0

    [accelerator]
    model = "V100M32"
    count = 8
    "#);
    assert_eq!((nodes[0].name.as_str(), nodes[0].kind.as_str()), ("plain", "cpu-server"));
    assert!(nodes[0].accelerator.is_none());
}

#[test]
fn a_damaged_node_list_is_reported_with_its_place() {
    let folder = Folder::new();
    let refusal = |from: &str, to: &str| {
        assert!(NODES.contains(from), "{from:?} is not in the sound file");
        folder.refusal(folder.openb(NODES.replacen(from, to, 1), PODS))
    };
    insta::assert_snapshot!(refusal("sn,cpu_milli", "name,cpu_mili"), @"nodes.csv, line 1: the header lacks sn, cpu_milli; want an openb node list such as openb_node_list_all_node.csv");
    insta::assert_snapshot!(refusal("model\n", "model,gpu\n"), @"nodes.csv, line 1: the header has gpu twice; want it once");
    insta::assert_snapshot!(refusal("96000,", "12x,"), @r#"nodes.csv, line 3, column cpu_milli: "12x" is not a whole number of millicores from 1 to 100000000"#);
    insta::assert_snapshot!(refusal("96000,", "-5,"), @r#"nodes.csv, line 3, column cpu_milli: "-5" is not a whole number of millicores from 1 to 100000000"#);
    insta::assert_snapshot!(refusal("96000,", "0,"), @r#"nodes.csv, line 3, column cpu_milli: "0" is not a whole number of millicores from 1 to 100000000"#);
    insta::assert_snapshot!(refusal("786432", "NaN"), @r#"nodes.csv, line 3, column memory_mib: "NaN" is not a whole number of MiB from 1 to 1000000000"#);
    insta::assert_snapshot!(refusal("786432", "inf"), @r#"nodes.csv, line 3, column memory_mib: "inf" is not a whole number of MiB from 1 to 1000000000"#);
    insta::assert_snapshot!(refusal("786432", "7864.32"), @r#"nodes.csv, line 3, column memory_mib: "7864.32" is not a whole number of MiB from 1 to 1000000000"#);
    insta::assert_snapshot!(refusal("786432", &"9".repeat(60)), @r#"nodes.csv, line 3, column memory_mib: "9999999999999999999999999999999999999999"… is not a whole number of MiB from 1 to 1000000000"#);
    insta::assert_snapshot!(refusal("8,V", "9999,V"), @r#"nodes.csv, line 3, column gpu: "9999" is not a whole number of gpus from 0 to 1000"#);
    insta::assert_snapshot!(refusal("V100M32", ""), @r#"nodes.csv, line 3, column model: "" is not a gpu model, which a node with gpus has"#);
    insta::assert_snapshot!(refusal("0,\n", "0,T4\n"), @r#"nodes.csv, line 2, column model: "T4" is not right for a node without gpu; leave it empty"#);
    insta::assert_snapshot!(refusal("big", "plain"), @r#"nodes.csv, line 3, column sn: "plain" is already on line 2; want each once"#);
    insta::assert_snapshot!(refusal("big", ""), @r#"nodes.csv, line 3, column sn: "" is not a name"#);
    insta::assert_snapshot!(refusal("big,", ""), @"nodes.csv, line 3: 4 fields, want 5 as in the header");
    insta::assert_snapshot!(refusal("V100M32", "V100M32,,"), @"nodes.csv, line 3: 7 fields, want 5 as in the header");
    insta::assert_snapshot!(refusal("big", "\"big"), @"nodes.csv, line 3, column sn: the field goes on over a line end; close its quote");
}

#[test]
fn a_damaged_pod_list_is_reported_with_its_place() {
    let folder = Folder::new();
    let refusal = |from: &str, to: &str| {
        assert!(PODS.contains(from), "{from:?} is not in the sound file");
        folder.refusal(folder.openb(NODES, PODS.replacen(from, to, 1)))
    };
    insta::assert_snapshot!(refusal(",creation_time,deletion_time,scheduled_time", ""), @"pods.csv, line 1: the header lacks creation_time, deletion_time, scheduled_time; want an openb pod list with times such as openb_pod_list_default.csv");
    insta::assert_snapshot!(refusal("88000", "12x"), @r#"pods.csv, line 3, column cpu_milli: "12x" is not a whole number of millicores from 0 to 100000000"#);
    insta::assert_snapshot!(refusal("220", "1001"), @r#"pods.csv, line 2, column gpu_milli: "1001" is not a whole number of thousandths of a gpu from 0 to 1000"#);
    insta::assert_snapshot!(refusal("220", "0"), @"pods.csv, line 2, column gpu_milli: 0 does not go with num_gpu 1; want 0 without gpu, 1 to 1000 with one, 1000 with several");
    insta::assert_snapshot!(refusal("8,1000", "8,500"), @"pods.csv, line 3, column gpu_milli: 500 does not go with num_gpu 8; want 0 without gpu, 1 to 1000 with one, 1000 with several");
    insta::assert_snapshot!(refusal("0,0,", "0,10,"), @"pods.csv, line 5, column gpu_milli: 10 does not go with num_gpu 0; want 0 without gpu, 1 to 1000 with one, 1000 with several");
    insta::assert_snapshot!(refusal("V100M16|", "V100M16||"), @r#"pods.csv, line 4, column gpu_spec: "V100M16||V100M32" is not a list of gpu models separated by |, such as V100M16|V100M32"#);
    insta::assert_snapshot!(refusal("90,200", ",200"), @r#"pods.csv, line 2, column creation_time: "" is not a number of seconds from 0 to 100000000"#);
    insta::assert_snapshot!(refusal("90,200", "-90,200"), @r#"pods.csv, line 2, column creation_time: "-90" is not a number of seconds from 0 to 100000000"#);
    insta::assert_snapshot!(refusal("90,200", "NaN,200"), @r#"pods.csv, line 2, column creation_time: "NaN" is not a number of seconds from 0 to 100000000"#);
    insta::assert_snapshot!(refusal("90,200", "90,inf"), @r#"pods.csv, line 2, column deletion_time: "inf" is not a number of seconds from 0 to 100000000"#);
    insta::assert_snapshot!(refusal("90,200", "90,99"), @"pods.csv, line 2, column deletion_time: 99 is before scheduled_time, 100; want a later time");
    insta::assert_snapshot!(refusal("100.0", "89"), @"pods.csv, line 2, column scheduled_time: 89 is before creation_time, 90; want a later time");
    insta::assert_snapshot!(refusal("10,40,", "10,9,"), @"pods.csv, line 4, column deletion_time: 9 is before creation_time, 10; want a later time");
    insta::assert_snapshot!(refusal("\nspec", "\nlate"), @r#"pods.csv, line 4, column name: "late" is already on line 2; want each once"#);
}

#[test]
fn the_whole_openb_cluster_comes_through() {
    let folder = "alibaba-openb-gpu-v2023";
    let file = |name: &str| shared(&format!("{folder}/{name}.csv"));
    let Some(nodes) = file("openb_node_list_all_node") else { return };
    // Default, and the lists sampled from it that have times.
    for (name, pods) in [("default", 8152), ("cpu050", 7439), ("gpushare40", 8152)] {
        let Some(list) = file(&format!("openb_pod_list_{name}")) else { continue };
        let imported = openb(&nodes, &list).unwrap();
        assert_eq!(imported.scenario.topology.nodes.len(), 1523);
        assert_eq!(imported.trace.arrivals().count(), pods);
        assert!(in_time_order(&imported.trace));
        if name == "default" {
            insta::assert_snapshot!(imported.notes.join("\n"), @"
            nodes: 1523; with gpus: 1213; gpus: 6212
            pods: 8152, none left out
            assumed, as the trace has no network or disks: 10000 Mbit/s and 0.1 ms for each node, 1000 GB of disk, no time to start a container
            pods never scheduled, for which the duration is deletion_time - creation_time: 897
            pods with a duration of 0 s, kept: 1
            pods deleted in the last second of the list, 12902960, whose duration the end of the recording may have cut off, kept: 34
            pods earlier than the one above, sorted by creation_time: 0
            ");
            assert_eq!(unplaceable(&accepted(&imported)), 0);
        }
    }
    let Some(without_times) = file("openb_pod_list_multigpu20") else { return };
    let message = openb(&nodes, &without_times).unwrap_err().to_string();
    assert!(
        message.contains("the header lacks gpu_spec, creation_time, deletion_time, scheduled_time"),
        "{message}"
    );
}
