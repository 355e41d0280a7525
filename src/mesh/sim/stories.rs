use super::*;
#[test]
fn a_call_by_capability_goes_straight_to_a_peer() {
    let mut w = World::new(1);
    let a = w.add(Spec::new("a"));
    let b = w.add(Spec::new("b").provides("echo"));
    w.join(a, b);
    w.run(secs(1));
    let call = w.call(a, Ask::new("echo"));
    let done = w.success(&call);
    assert_eq!((done.hops, done.route), (1, crate::node::Route::Direct));
}
