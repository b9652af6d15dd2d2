// What Python means by its operators and builtins, where JavaScript means something else or nothing at all.
// Numbers are doubles: whole numbers beyond 2^53 are rounded, where Python keeps every digit.
const py = {
  number(x) {
    if (typeof x === "number") return x;
    if (typeof x === "boolean") return Number(x);
    throw new TypeError(`a number was expected, not ${x === null ? "None" : typeof x}`);
  },
  missing(name) {
    throw new TypeError(`the argument ${name} is missing`);
  },
  add: (a, b) => (typeof a === "string" && typeof b === "string" ? a + b : py.number(a) + py.number(b)),
  sub: (a, b) => py.number(a) - py.number(b),
  mul: (a, b) => py.number(a) * py.number(b),
  neg: (a) => -py.number(a),
  divisor(b) {
    if (py.number(b) === 0) throw new RangeError("division by zero");
    return py.number(b);
  },
  div: (a, b) => py.number(a) / py.divisor(b),
  // The quotient of the doubles may round up to a whole number that the true one does not reach: 1 // 0.1 is 9.
  floordiv(a, b) {
    const [x, y] = [py.number(a), py.divisor(b)];
    const rest = x % y;
    const quotient = (x - rest) / y - (rest !== 0 && rest < 0 !== y < 0 ? 1 : 0);
    return Math.floor(quotient) + (quotient - Math.floor(quotient) > 0.5 ? 1 : 0);
  },
  mod(a, b) {
    const [x, y] = [py.number(a), py.divisor(b)];
    const rest = x % y;
    if (Number.isInteger(x) && Math.abs(x) > Number.MAX_SAFE_INTEGER) throw new RangeError(`${x} has lost its last digits`);
    return rest === 0 ? 0 : rest < 0 === y < 0 ? rest : rest + y;
  },
  pow(a, b) {
    const [x, y] = [py.number(a), py.number(b)];
    if (x === 0 && y < 0) throw new RangeError("0 to a negative power");
    const power = x ** y;
    if (!Number.isFinite(power) && Number.isFinite(x) && Number.isFinite(y)) {
      throw new RangeError(`${x} ** ${y} is no finite real number`);
    }
    return power;
  },
  finite(x) {
    if (!Number.isFinite(py.number(x))) throw new RangeError(`${x} cannot be made a whole number`);
    return py.number(x);
  },
  floor: (x) => Math.floor(py.finite(x)) + 0,
  ceil: (x) => Math.ceil(py.finite(x)) + 0,
  int: (x) => Math.trunc(py.finite(x)) + 0,
  float: (x) => py.number(x),
  // Halves go to the even neighbour.
  round(x) {
    const below = Math.floor(py.finite(x));
    const rest = py.number(x) - below;
    return (rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1) + 0;
  },
  abs: (x) => Math.abs(py.number(x)),
  sqrt(x) {
    if (py.number(x) < 0) throw new RangeError("square root of a negative number");
    return Math.sqrt(x);
  },
  logarithm: (f) => (x) => {
    if (py.number(x) <= 0) throw new RangeError("logarithm of a number that is not positive");
    return f(x);
  },
  exp: (x) => Math.exp(py.number(x)),
  log: (x) => py.logarithm(Math.log)(x),
  log2: (x) => py.logarithm(Math.log2)(x),
  log10: (x) => py.logarithm(Math.log10)(x),
  items(values) {
    const all = [...values].map(py.number);
    if (all.length === 0) throw new TypeError("nothing to choose from");
    return all;
  },
  min: (values) => Math.min(...py.items(values)),
  max: (values) => Math.max(...py.items(values)),
  sum: (values) => [...values].reduce((total, x) => total + py.number(x), 0),
  truth(x) {
    if (x === undefined) throw new TypeError("a name has no value yet");
    return x instanceof Map ? x.size > 0 : x !== null && x !== false && x !== 0 && x !== "";
  },
  and: (a, b) => (py.truth(a) ? b() : a),
  or: (a, b) => (py.truth(a) ? a : b()),
  eq(a, b) {
    if ([a, b].some((side) => side === undefined || side instanceof Map)) throw new TypeError("not to be compared");
    const [x, y] = [a, b].map((side) => (typeof side === "boolean" ? Number(side) : side));
    return x === y;
  },
  lt: (a, b) => py.number(a) < py.number(b),
  le: (a, b) => py.number(a) <= py.number(b),
  gt: (a, b) => py.number(a) > py.number(b),
  ge: (a, b) => py.number(a) >= py.number(b),
  within: (values, x) => (values instanceof Map ? values.has(x) : values.some((value) => py.eq(value, x))),
  item(map, key) {
    if (!map.has(key)) throw new RangeError(`no key ${key}`);
    return map.get(key);
  },
  get: (map, key, otherwise = null) => (map.has(key) ? map.get(key) : otherwise),
  text(x) {
    if (typeof x !== "string" && !Number.isSafeInteger(x)) throw new TypeError("only text and whole numbers are written");
    return String(x);
  },
};
