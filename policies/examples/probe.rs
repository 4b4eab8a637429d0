use std::sync::Arc; use std::time::Instant;
use remora_policies::{rollout::*, heuristics::*, Policy};
use remora_env::{Scenario};
fn main(){
 for name in ["urban-sensing","industrial-iot","cloud-regions"] {
  let s=Scenario::load(name).unwrap_or_else(|e| panic!("{e}"));
  let t=Instant::now(); let r=reference(&s); println!("{name} reference {r:?} {:?}",t.elapsed());
  for seed in 0..2u64 { let w=Arc::new(s.world(seed));
   let mut ps:Vec<Box<dyn Policy>>=vec![Box::new(Random{seed}),Box::new(KubeDefault::new(seed)),Box::new(Skippy),Box::new(GreedyCompletion)];
   for p in &mut ps { let t=Instant::now(); let e=play(&w,p.as_mut(),0.5,r); let el=t.elapsed(); e.check(); let f=Figures::of(&e);
    println!("  {seed} {:20} moved {:8.2} GB wan {:8.2} GB resp {:7.2} p95 {:7.2} cost0 {:.3} cost1 {:.3}  unpl {} {:.0} dec/s",p.name(),f.moved_bytes/1e9,f.wan_bytes/1e9,f.response_mean_s,f.response_p95_s,f.cost(0.,r),f.cost(1.,r),f.unplaceable,f.tasks as f64/el.as_secs_f64()); }
  } } }
