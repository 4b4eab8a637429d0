use std::sync::Arc; use std::time::Instant;
use burn::module::Module;
use remora_trainer::{Config, ppo::Learner, collect::*};
use remora_policies::{rollout::*, heuristics::*, *};
use remora_env::Scenario;
#[global_allocator] static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main(){
 let minutes: f64 = std::env::args().nth(1).map_or(1.0, |a| a.parse().unwrap());
 let mut c=Config::default();
 for kv in std::env::args().skip(2) { let mut t: toml::Table = toml::Table::try_from(&c).unwrap(); let (k,v)=kv.split_once('=').unwrap(); let val: toml::Value = format!("x={v}").parse::<toml::Table>().unwrap()["x"].clone(); t.insert(k.into(),val); c=t.try_into().unwrap(); }
 let courses:Vec<Course>=c.scenarios.iter().map(|n| Course::new(Scenario::load(n).unwrap(), c.tasks)).collect();
 for k in &courses { println!("{} ref {:?} greedy {:?}",k.scenario.name(),k.reference,k.greedy); }
 let mut l=Learner::new(c,courses.clone());
 let t=Instant::now(); let mut next=0.0;
 loop { let p=(t.elapsed().as_secs_f64()/60.0/minutes).min(1.0); let done=p>=1.0;
  if p>=next || done { next+=0.2; 
   let mut line=format!("{:6.1}s it {}",t.elapsed().as_secs_f64(),l.iteration);
   for k in &courses { for alpha in [0.0,0.25,0.5,0.75,1.0] {
     let mut lg=0.0; let n=4; for s in 0..n { let w=world(k,VALIDATION_SEEDS+s);
       let g=Figures::of(&play(&w,&mut GreedyMarginal,alpha,k.reference)).cost(alpha,k.reference);
       let m=Figures::of(&play(&w,&mut Learned::from_network("x",l.network.valid(),l.config.network),alpha,k.reference)).cost(alpha,k.reference);
       if done&&s==0 { let a=Figures::of(&play(&w,&mut GreedyMarginal,alpha,k.reference)); let b=Figures::of(&play(&w,&mut Learned::from_network("x",l.network.valid(),l.config.network),alpha,k.reference)); println!("     {} a{alpha} greedy {:.2}GB {:.2}s net {:.2}GB {:.2}s",k.scenario.name(),a.moved_bytes/1e9,a.response_mean_s,b.moved_bytes/1e9,b.response_mean_s); }
       lg+=(m/g).ln(); } line+=&format!(" {:.3}",(lg/n as f64).exp()); } line+=" |"; }
   println!("{line}"); }
  if done {break}
  let m=l.step(p);
  if l.iteration%5==1 { println!("   it {} cost {:.3} pl {:.4} vl {:.4} ev {:.2} ent {:.3} kl {:.4} clip {:.2} n {} gs {} col {:.2}s upd {:.2}s",l.iteration,m.relative_cost,m.policy_loss,m.value_loss,m.explained_variance,m.entropy,m.kl,m.clip_fraction,m.decisions,m.gradient_samples,m.collect_s,m.update_s); }
 } let _=Arc::new(0); }
