// One tab of this page listens at a time: two would answer each other.
const NAME = "duologue-microphone";

// The right to listen, as a function that gives it back; null if another tab has it. steal: take it from there.
// taken() is called once another tab has taken it from here.
export function hold(steal, taken) {
  if (!navigator.locks) return Promise.resolve(() => {});
  return new Promise((done) => {
    navigator.locks
      .request(NAME, steal ? { steal: true } : { ifAvailable: true }, (lock) => {
        if (lock) return new Promise((release) => done(release));
        done(null);
      })
      .catch(taken);
  });
}
