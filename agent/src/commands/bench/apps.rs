//! `remora bench apps`: what AppCore costs, as a pure state machine and as a service that keeps what it is told.

mod service;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use cpu_time::ThreadTime;
use serde::Serialize;

use crate::appcore::core::{By, Core, Effect, Input};
use crate::appcore::manifest::Manifest;
use crate::appcore::rows::Row as Kept;
use crate::appcore::run::{Blob, End, Left, MODEL, Usage};
use crate::commands::{print, table, tables};
use service::Offered;

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Most applications; the core is measured with a tenth and a hundredth of them too.
    #[arg(long, default_value_t = 1000)]
    apps: u32,
    /// Triggers of each, half of them schedules, half waiting for data.
    #[arg(long, default_value_t = 10)]
    triggers: u32,
    /// Notices per second that are offered to the service.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Seconds for which they are.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// CPU of the core, microseconds.
#[derive(Clone, Debug, Serialize)]
struct Row {
    apps: u32,
    triggers: u32,
    us_per_notice: f64,
    /// Looking whether anything is due where nothing is.
    us_per_tick: f64,
    /// A schedule that fires and the learning that it leads to.
    us_per_due_trigger: f64,
    /// A round of notices to all and of all schedules, as a multiple of the one with the fewest applications; and what
    /// n log n would make of it.
    growth: f64,
    n_log_n: f64,
}

/// 2026-01-05, a Monday, 00:00 UTC.
const BEGIN_MS: i64 = 1_767_571_200_000;
const HOUR_MS: i64 = 3_600_000;
/// Notices and ticks of a case.
const MANY: u32 = 20_000;

pub async fn run(args: &Args, json: bool) -> Result<()> {
    if !(args.seconds.is_finite() && args.seconds > 0.0)
        || args.apps == 0
        || args.triggers < 2
        || args.rate == 0
    {
        bail!("--seconds, --apps and --rate want numbers above 0, --triggers at least 2");
    }
    let mut sizes: Vec<u32> = [100, 10, 1].map(|part| args.apps / part).into();
    sizes.retain(|apps| *apps > 0);
    let mut rows: Vec<Row> = Vec::new();
    for apps in sizes {
        let mut row = measure(apps, args.triggers)?;
        if let Some(first) = rows.first() {
            row.growth = round_us(&row) / round_us(first);
            row.n_log_n = n_log_n(apps) / n_log_n(first.apps);
        }
        rows.push(row);
    }
    let offered = service::measure(args.apps, args.triggers, args.rate, args.seconds).await?;
    if json {
        return tables::print_json(&serde_json::json!({ "rows": rows, "service": offered }));
    }
    print(show(&rows, &offered))
}

fn n_log_n(apps: u32) -> f64 {
    f64::from(apps) * f64::from(apps).max(2.0).log2()
}

fn round_us(row: &Row) -> f64 {
    f64::from(row.apps) * (row.us_per_notice + row.us_per_due_trigger * f64::from(row.triggers / 2))
}

/// An application with so many triggers; its schedules fire once an hour.
fn manifest(name: &str, triggers: u32) -> String {
    let trigger = |number: u32| match number % 2 {
        0 => format!("on.schedule = {{ cron = \"{} * * * *\" }}", number % 60),
        _ => "on.data = { count = 1000000000 }".to_owned(),
    };
    let triggers = (0..triggers).map(|number| {
        format!("[[trigger]]\nname = \"t{number}\"\noverlap = \"buffer\"\n{}\n", trigger(number))
    });
    format!("name = \"{name}\"\n[learn]\ncommand = [\"true\"]\n{}", triggers.collect::<String>())
}

fn name(number: u32) -> String {
    format!("app-{number}")
}

/// Steps of a core, without anybody around it.
struct Stepped {
    core: Core,
    now_ms: i64,
}

impl Stepped {
    fn take(&mut self, input: &Input) -> Result<(Vec<Effect>, Vec<Kept>)> {
        let outcome = self.core.handle(self.now_ms, input)?;
        Ok((outcome.effects, outcome.rows))
    }

    fn with(apps: u32, triggers: u32) -> Result<Stepped> {
        let mut stepped = Stepped { core: Core::default(), now_ms: BEGIN_MS };
        for number in 0..apps {
            let manifest = Box::new(Manifest::read(&manifest(&name(number), triggers))?);
            stepped.take(&Input::Register { manifest, code: None, by: by() })?;
            stepped.take(&Input::Enable { app: name(number), by: by() })?;
        }
        Ok(stepped)
    }

    /// Lets an hour of schedules pass; every learning ends well at once. How many fired.
    fn hour(&mut self) -> Result<u32> {
        let (until_ms, mut fired) = (self.now_ms + HOUR_MS, 0);
        while let Some(at_ms) = self.core.next_ms().filter(|at_ms| *at_ms <= until_ms) {
            self.now_ms = at_ms;
            let (mut effects, rows) = self.take(&Input::Time)?;
            fired += rows.iter().filter(|row| matches!(row, Kept::Fired { .. })).count() as u32;
            while let Some(effect) = effects.pop() {
                if let Effect::Launch(launch) = effect {
                    let run = launch.run;
                    let model = Blob { name: MODEL.to_owned(), hash: run.id.clone(), bytes: 1 };
                    let left = Left { outputs: vec![model], usage: Usage::default() };
                    let end = End::Success { scores: None };
                    let ended = Input::Ended { run: run.id, attempt: run.attempt, end, left };
                    effects.extend(self.take(&ended)?.0);
                }
            }
        }
        Ok(fired)
    }
}

fn by() -> By {
    By::new("bench", "")
}

/// CPU microseconds of one of so many.
fn each(count: u32, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = ThreadTime::now();
    work()?;
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(count.max(1)))
}

fn measure(apps: u32, triggers: u32) -> Result<Row> {
    let mut stepped = Stepped::with(apps, triggers)?;
    let notice = |number: u32| Input::Notice {
        app: name(number % apps),
        key: format!("notice {number}"),
        items: 1,
        bytes: 100,
        inputs: Vec::new(),
        by: by(),
    };
    let notices: Vec<_> = (0..MANY).map(notice).collect();
    let us_per_notice = each(MANY, || notices.iter().try_for_each(|notice| stepped.take(notice).map(drop)))?;
    let us_per_tick = each(MANY, || (0..MANY).try_for_each(|_| stepped.take(&Input::Time).map(drop)))?;
    // As often as it takes to see it.
    let (mut fired, began) = (0, ThreadTime::now());
    while fired < MANY / 4 {
        fired += stepped.hour()?;
    }
    let us_per_due_trigger = began.elapsed().as_secs_f64() * 1e6 / f64::from(fired);
    Ok(Row { apps, triggers, us_per_notice, us_per_tick, us_per_due_trigger, growth: 1.0, n_log_n: 1.0 })
}

fn show(rows: &[Row], offered: &Offered) -> String {
    let header =
        ["apps", "triggers", "µs/notice", "µs/tick", "µs/due trigger", "growth of a round", "n log n"];
    let mut core = table(&header);
    for row in rows {
        core.add_row([
            row.apps.to_string(),
            row.triggers.to_string(),
            format!("{:.1}", row.us_per_notice),
            format!("{:.2}", row.us_per_tick),
            format!("{:.1}", row.us_per_due_trigger),
            format!("{:.1}", row.growth),
            format!("{:.1}", row.n_log_n),
        ]);
    }
    let header =
        ["apps", "offered/s", "accepted/s", "refused", "p50 ms", "p99 ms", "p999 ms", "CPU µs", "load"];
    let mut service = table(&header);
    service.add_row([
        offered.apps.to_string(),
        format!("{:.0}", offered.offered_per_s),
        format!("{:.0}", offered.accepted_per_s),
        offered.refused.to_string(),
        format!("{:.1}", offered.p50_ms),
        format!("{:.1}", offered.p99_ms),
        format!("{:.1}", offered.p999_ms),
        format!("{:.0}", offered.cpu_us_per_notice),
        format!("{:.1}", offered.load),
    ]);
    format!(
        "{core}\nThe core alone, CPU. A round: a notice to each application, and all schedules once.\n{service}\n\
         Notices over loopback, each acknowledged once it is on disk (SQLite, synchronous = FULL). Latency counts \
         from the moment\nat which a notice was due to be sent. CPU: of the server, per notice. Load: of this \
         machine over the last minute."
    )
}
