//! Azure's LLM requests and functions.

use remora_env::import::{
    AzureFunctionsFiles, AzureFunctionsOptions, AzureLlmOptions, EdgeOptions, ImportError, Imported,
    azure_functions, azure_llm,
};

use super::{Folder, accepted, in_time_order, shared, unplaceable};

const REQUESTS: &str = "\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:04,100,0
";

fn llm(text: &str) -> Result<Imported, ImportError> {
    azure_llm(&Folder::new().file("requests.csv", text), &AzureLlmOptions::default())
}

#[test]
fn llm_requests_take_as_long_as_their_tokens() {
    let imported = llm(REQUESTS).unwrap();
    let arrivals: Vec<_> = imported.trace.arrivals().collect();
    assert_eq!(arrivals.iter().map(|a| a.at_s).collect::<Vec<_>>(), [0.0, 0.02004, 0.052]);
    assert_eq!(arrivals[0].duration_s, Some(4808.0 * 0.000_23 + 10.0 * 0.047));
    assert_eq!((arrivals[1].accelerator_millis, arrivals[1].inputs[0].as_str()), (125, "model"));
    assert_eq!(unplaceable(&accepted(&imported)), 0);
}

#[test]
fn damaged_llm_requests_are_refused() {
    let folder = Folder::new();
    for (from, to, message) in [
        (
            "18:17:04.0319600",
            "18:17:64.0",
            "line 3, column TIMESTAMP: \"2023-11-16 18:17:64.0\" is not a date",
        ),
        ("18:17:04.0319600", "18:17:04.x", "line 3, column TIMESTAMP"),
        ("3180", "-1", "line 3, column ContextTokens: \"-1\" is not a whole number of tokens"),
    ] {
        let path = folder.file("requests.csv", REQUESTS.replace(from, to));
        let refusal = folder.refusal(azure_llm(&path, &AzureLlmOptions::default()));
        assert!(refusal.contains(message), "{refusal}");
    }
    let options = AzureLlmOptions { edge: EdgeOptions::default(), ..AzureLlmOptions::default() };
    let refusal = folder.refusal(azure_llm(&folder.file("requests.csv", REQUESTS), &options));
    insta::assert_snapshot!(refusal, @"option kind is nuc, want a device kind with an accelerator, such as l4-server");
}

#[test]
fn all_llm_requests_come_through() {
    let Some(requests) = shared("azure-llm-2023/AzureLLMInferenceTrace_code.csv") else { return };
    let imported = azure_llm(&requests, &AzureLlmOptions::default()).unwrap();
    assert_eq!(imported.trace.arrivals().count(), 8819);
    assert!(in_time_order(&imported.trace));
    assert_eq!(unplaceable(&accepted(&imported)), 0);
}

/// The published columns of a day, shortened to the minutes that are read.
fn day(
    folder: &Folder,
    options: &AzureFunctionsOptions,
    change: (&str, &str),
) -> Result<Imported, ImportError> {
    let invocations = "\
HashOwner,HashApp,HashFunction,Trigger,1,2,3
o1,a1,f1,http,0,4,1
o1,a1,f2,timer,1,1,1
o2,a2,f3,queue,0,100,0
o3,a3,f4,http,0,50,0
";
    let durations = "\
HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,percentile_Average_0,percentile_Average_1,percentile_Average_25,percentile_Average_50,percentile_Average_75,percentile_Average_99,percentile_Average_100
o1,a1,f1,200,9,100,500,100,100,150,200,300,400,500
o1,a1,f2,10,9,10,10,10,10,10,10,10,10,10
o2,a2,f3,1000,9,0,2000,0,20,500,1000,1500,1980,2000
";
    let memory = "\
HashOwner,HashApp,SampleCount,AverageAllocatedMb,AverageAllocatedMb_pct1,AverageAllocatedMb_pct5,AverageAllocatedMb_pct25,AverageAllocatedMb_pct50,AverageAllocatedMb_pct75,AverageAllocatedMb_pct95,AverageAllocatedMb_pct99,AverageAllocatedMb_pct100
o1,a1,100,80,10,20,60,80,90,100,110,120
";
    let [invocations, durations, memory] = [("i.csv", invocations), ("d.csv", durations), ("m.csv", memory)]
        .map(|(name, text)| folder.file(name, text.replace(change.0, change.1)));
    let files = AzureFunctionsFiles { invocations: &invocations, durations: &durations, memory: &memory };
    azure_functions(&files, options)
}

#[test]
fn invocations_are_spread_over_their_minute_and_last_as_the_percentiles_say() {
    let options = AzureFunctionsOptions { functions: 3, minutes: 2, from_minute: 2, ..Default::default() };
    let imported = day(&Folder::new(), &options, ("", "")).unwrap();
    let arrivals: Vec<_> = imported.trace.arrivals().collect();
    // Of f3, f4 and f1, f4 has no durations.
    assert_eq!(arrivals.len(), 100 + 5);
    assert!(in_time_order(&imported.trace));
    assert!(arrivals.iter().all(|arrival| (0.0..120.0).contains(&arrival.at_s)));
    let of = |app: &'static str| arrivals.iter().filter(move |arrival| arrival.image.as_deref() == Some(app));
    let durations: Vec<f64> = of("a2").filter_map(|arrival| arrival.duration_s).collect();
    let mean = durations.iter().sum::<f64>() / durations.len() as f64;
    assert!((mean - 1.0).abs() < 0.2 && durations.iter().all(|s| (0.0..=2.0).contains(s)), "{mean}");
    assert_eq!(of("a1").map(|arrival| arrival.memory_bytes).max(), Some(80_000_000));
    assert_eq!(unplaceable(&accepted(&imported)), 0);
}

#[test]
fn damaged_days_are_refused() {
    let folder = Folder::new();
    let options = AzureFunctionsOptions { minutes: 3, ..Default::default() };
    for (from, to, message) in [
        ("timer,1,1,1", "timer,1,x,1", "i.csv, line 3, column 2: \"x\" is not a whole number of invocations"),
        (
            ",150,200,300",
            ",150,100,300",
            "d.csv, line 2, column percentile_Average_50: \"100\" is not at least percentile_Average_25",
        ),
        ("10,20,60,80,90", "10,20,60,-8,90", "m.csv, line 2, column AverageAllocatedMb_pct50"),
        ("HashApp,", "App,", "i.csv, line 1: the header lacks HashApp"),
    ] {
        let refusal = folder.refusal(day(&folder, &options, (from, to)));
        assert!(refusal.contains(message), "{refusal}");
    }
    let options = AzureFunctionsOptions { from_minute: 1440, minutes: 2, ..Default::default() };
    let refusal = folder.refusal(day(&folder, &options, ("", "")));
    insta::assert_snapshot!(refusal, @"option minutes is 2, want a number from 1 to 1");
}
