
// The page: reads the form, asks the formulas above, writes tables and bar. No formula stands here.
globalThis.coursekitPlanner = (() => {
  "use strict";
  const { call } = coursekitPlan;
  const total = (parts) => call("total", { parts });

  // The stage of the pipeline that a result is greatest on.
  function worst(f, values) {
    let most = null;
    for (let stage = 0; stage < values.pp_size; stage += 1) {
      const parts = call(f, { ...values, stage });
      if (most === null || total(parts) > total(most)) most = parts;
    }
    return most;
  }

  const alone = { dp_size: 1, tp_size: 1, pp_size: 1, cp_size: 1, ep_size: 1, stage: 0 };

  // All results of one choice; `values` holds the formulas' arguments by name.
  function plan(values) {
    const params = call("parameters_on_rank", { ...values, ...alone });
    const num_params = call("parameters_used", { ...values, params });
    const forward = total(call("forward_flops", values));
    const batch_tokens = call("global_batch_size", values) * values.seq_len;
    const num_devices = call("world_size", values);
    const step = worst("step_on_rank", values);
    const seconds = total(step);
    const num_tokens = values.num_tokens || call("compute_optimal_tokens", { num_params });
    const run_seconds = (num_tokens / batch_tokens) * seconds;
    return {
      memory: worst("memory_on_rank", values),
      step,
      sent: worst("communication_on_rank", values),
      run: new Map([
        ["parameters", total(params)],
        ...(values.n_experts > 0 ? [["parameters that a token uses", num_params]] : []),
        ["bytes of a token in a KV cache of 16 bits", call("cache_bytes_per_token", { ...values, cached_bytes: 2 })],
        ["FLOPs of a token", 3 * forward],
        ["tokens of a step", batch_tokens],
        ["MFU", call("mfu", {
          tokens_per_second: batch_tokens / seconds,
          flops_per_token: 3 * forward,
          peak_flops_per_second: num_devices * values.peak_flops_per_second,
        })],
        ["tokens of the run", num_tokens],
        ["FLOPs of the run, 6 N D", call("training_flops", { num_params, num_tokens })],
        ["days", run_seconds / 86400],
        ["device hours", call("device_hours", { seconds: run_seconds, num_devices })],
      ]),
    };
  }

  function digits(x) {
    if (x !== 0 && (Math.abs(x) >= 1e6 || Math.abs(x) < 1e-3)) return x.toExponential(2).replace("e+", "e");
    return x.toLocaleString("en", { maximumSignificantDigits: 3 });
  }

  const scales = { memory: 2 ** 30, step: 1, sent: 1e9, run: 1 };

  function fill(table, parts, { withTotal }) {
    const [name, { unit }] = [table.dataset.part, table.dataset];
    const rows = [...parts].filter(([, value]) => value !== 0 || name === "run");
    if (withTotal) rows.push(["total", total(parts)]);
    table.tBodies[0].replaceChildren(...rows.map(([part, value]) => {
      const row = document.createElement("tr");
      row.className = part === "total" ? "planner-total" : `planner-part-${[...parts.keys()].indexOf(part)}`;
      const head = row.appendChild(document.createElement("th"));
      head.scope = "row";
      head.textContent = part.replaceAll("_", " ");
      row.insertCell().textContent = `${digits(value / scales[name])}${unit && ` ${unit}`}`;
      return row;
    }));
  }

  function draw(bar, parts, usable) {
    const whole = Math.max(usable, total(parts));
    bar.replaceChildren(...[...parts].map(([part, value], index) => {
      const piece = document.createElement("span");
      piece.className = `planner-part-${index}`;
      piece.style.width = `${(100 * value) / whole}%`;
      piece.title = part.replaceAll("_", " ");
      return piece;
    }));
    const told = [...parts].filter(([, value]) => value > 0).map(([part, value]) =>
      `${part.replaceAll("_", " ")} ${Math.round((100 * value) / whole)} %`);
    const limit = bar.appendChild(document.createElement("i"));
    limit.style.left = `${(100 * usable) / whole}%`;
    bar.setAttribute("aria-label", `Share of the bar by part: ${told.join(", ")}`);
  }

  return { plan, fill, draw, digits };
})();

document.addEventListener("DOMContentLoaded", () => {
  "use strict";
  const form = document.querySelector("form.planner");
  if (!form) return;
  const data = JSON.parse(document.getElementById("planner-data").textContent);
  const field = (name) => form.elements.namedItem(name);
  const result = document.querySelector(".planner-result");
  const verdict = document.querySelector(".planner-verdict");

  // What has no meaning while another number is 0.
  const dependents = {
    n_experts: ["top_k", "expert_d_ff", "n_shared_experts", "first_dense_layers", "ep_size"],
    kv_rank: ["q_rank", "nope_dim", "rope_dim", "v_dim"],
  };

  function enable() {
    for (const [name, others] of Object.entries(dependents)) {
      for (const other of others) field(other).disabled = Number(field(name).value) === 0;
    }
    // With latent attention every head has a key of its own.
    field("n_kv_heads").disabled = Number(field("kv_rank").value) > 0;
  }

  // A count as people write it, or NaN: the command line's pattern and its table, in exact arithmetic.
  const { pattern, times } = data.count;
  const counts = new RegExp(`^(?:${pattern})$`, "i");

  function count(text) {
    const found = counts.exec(text.trim().replaceAll("_", "").replaceAll(",", ""));
    if (!found || (found[2] ?? "").length > 3) return NaN;
    const [whole, fraction = ""] = found[1].split(".");
    const scale = 10n ** BigInt(found[2] ?? 0) * BigInt(times[(found[3] ?? "").toLowerCase()]);
    const [scaled, divisor] = [BigInt(whole + fraction) * scale, 10n ** BigInt(fraction.length)];
    return scaled % divisor === 0n && scaled > 0n ? Number(scaled / divisor) : NaN;
  }

  function value(element) {
    if (element.type === "checkbox") return element.checked;
    if (element.type === "number") return Number(element.value);
    if (!("count" in element.dataset)) return element.value;
    return element.required || element.value.trim() ? count(element.value) : 0;
  }

  function read() {
    const used = [...form.elements].filter((element) => element.name && !element.disabled);
    const values = Object.fromEntries(used.map((element) => [element.name, value(element)]));
    const device = data.devices[values.device];
    const all = {
      ...data.others,
      ...values,
      ...data.recipes[values.recipe],
      n_kv_heads: values.n_kv_heads ?? values.n_heads,
      peak_flops_per_second: device.peak_flops_per_second,
      memory_bytes_per_second: device.memory_bytes_per_second,
      intra_bytes_per_second: device.intra_bytes_per_second,
      inter_bytes_per_second: (values.network * 1e9) / 8,
      devices_per_node: Math.min(values.devices_per_node, values.num_devices),
      stages_per_rank: values.schedule === "interleaved" && values.pp_size > 1 ? values.stages_per_rank : 1,
      zero_stage: Number(values.zero_stage),
      usable: device.memory_bytes * data.usable_memory,
    };
    return { ...all, dp_size: all.num_devices / coursekitPlan.call("world_size", { ...all, dp_size: 1 }) };
  }

  const label = (name) => field(name).closest("label").textContent.replace(/ \(.*\)$/, "");

  // Who would have to share a number that does not divide.
  function sharers(name, values) {
    if (name === "n_experts") return `${values.ep_size} expert-parallel ranks`;
    if (name !== "seq_len") return `${values.tp_size} tensor ranks`;
    const parts = values.cp_size * (values.sequence_parallel ? values.tp_size : 1);
    return `${parts} ranks of context and sequence`;
  }

  // Whatever is wrong concerns fields, the likeliest culprit first, and is told in a sentence.
  const problem = (text, ...names) => ({ text, names });

  function undivided(values) {
    const name = coursekitPlan.call("undivided", values);
    if (!name) return null;
    if (name === "n_layers") {
      const stages = values.pp_size * values.stages_per_rank;
      const text = `${stages} stages need as many layers, and the model has ${values.n_layers}.`;
      return problem(text, "pp_size", "n_layers", "stages_per_rank");
    }
    const told = `${label(name)} (${values[name]})`;
    if (name === "grad_accum_steps") {
      const text = `${told}: an interleaved pipeline takes them in groups of as many as it has ranks, ${values.pp_size}.`;
      return problem(text, name, "pp_size", "schedule");
    }
    const axes = { n_experts: ["ep_size"], seq_len: ["cp_size", "tp_size"] }[name] ?? ["tp_size"];
    return problem(`${told}: ${sharers(name, values)} cannot share them evenly.`, name, ...axes);
  }

  function unreadable(values) {
    const invalid = form.querySelector("input:invalid");
    if (invalid) return problem(`${label(invalid.name)}: ${invalid.validationMessage}`, invalid.name);
    const inputs = [...form.querySelectorAll("input[data-count]")];
    const wrong = inputs.find(({ name }) => !Number.isFinite(values[name]));
    return wrong ? problem(`${label(wrong.name)}: write a count as 4000000, 4_000_000, 4e6 or 4M.`, wrong.name) : null;
  }

  function impossibleModel(values) {
    if (values.d_model % values.n_heads !== 0) return problem("The heads do not divide the width.", "n_heads", "d_model");
    if (values.n_heads % values.n_kv_heads !== 0) {
      return problem("The key-value heads do not divide the heads.", "n_kv_heads", "n_heads");
    }
    if (values.position === "rope" && (values.d_model / values.n_heads) % 2 !== 0) {
      return problem("Rotary positions turn pairs: width over heads must be even.", "n_heads", "d_model", "position");
    }
    if (values.rope_dim % 2 !== 0) return problem("Rotary positions turn pairs: an even number of a head's.", "rope_dim");
    if (values.n_experts > 0 && values.top_k > values.n_experts) {
      return problem(`A token cannot use ${values.top_k} of ${values.n_experts} experts.`, "top_k", "n_experts");
    }
    if (values.position === "learned" && values.seq_len > values.max_seq_len) {
      const text = `${values.seq_len} tokens of a sequence, and the model has learned ${values.max_seq_len} positions.`;
      return problem(text, "seq_len", "max_seq_len", "position");
    }
    return null;
  }

  function impossibleMesh(values) {
    if (!Number.isInteger(values.dp_size)) {
      const product = coursekitPlan.call("world_size", { ...values, dp_size: 1 });
      const text = `${values.num_devices} devices are no multiple of ${product}, ` +
        "the product of tensor, pipeline, context and expert size.";
      return problem(text, "num_devices", "tp_size", "pp_size", "cp_size", "ep_size");
    }
    if (values.num_devices % values.devices_per_node !== 0) {
      const text = `${values.num_devices} devices do not fill nodes of ${values.devices_per_node}.`;
      return problem(text, "num_devices", "devices_per_node");
    }
    return null;
  }

  const firstProblem = (values) =>
    unreadable(values) ?? impossibleMesh(values) ?? impossibleModel(values) ?? undivided(values);

  // The sentence stands beside its field as well, and is read with it.
  const beside = Object.assign(document.createElement("p"), { className: "planner-error", id: "planner-error" });

  // Of the fields that are concerned, the one that is being changed is where the reader looks.
  function mark(wrong) {
    for (const marked of form.querySelectorAll("[aria-invalid]")) {
      marked.removeAttribute("aria-invalid");
      marked.removeAttribute("aria-describedby");
    }
    beside.remove();
    if (!wrong) return;
    const changed = document.activeElement?.name;
    const element = field(wrong.names.includes(changed) ? changed : wrong.names[0]);
    beside.textContent = wrong.text;
    element.closest("label").after(beside);
    element.setAttribute("aria-invalid", "true");
    element.setAttribute("aria-describedby", beside.id);
    if (element.name === changed) beside.scrollIntoView({ block: "nearest" });
  }

  const largest = (parts) => [...parts].reduce((a, b) => (b[1] > a[1] ? b : a))[0].replaceAll("_", " ");

  function update() {
    enable();
    const values = read();
    const wrong = firstProblem(values);
    mark(wrong);
    result.classList.toggle("planner-wrong", Boolean(wrong));
    result.inert = Boolean(wrong); // numbers of an earlier question
    if (wrong) {
      verdict.textContent = wrong.text;
      delete verdict.dataset.fits;
      return;
    }
    const { digits, fill, draw, plan } = coursekitPlanner;
    const plans = plan(values);
    const needs = coursekitPlan.call("total", { parts: plans.memory });
    const [gib, limit] = [needs, values.usable].map((bytes) => digits(bytes / 2 ** 30));
    const seconds = coursekitPlan.call("total", { parts: plans.step });
    verdict.textContent = needs <= values.usable
      ? `Fits: ${gib} of ${limit} GiB that a plan may use. Data parallel ${values.dp_size}, ` +
        `${digits(seconds)} s a step, ${digits(plans.run.get("days"))} days.`
      : `Does not fit: ${gib} GiB, most of it ${largest(plans.memory)}, and ${limit} may be used. ` +
        `Data parallel ${values.dp_size}.`;
    verdict.dataset.fits = String(needs <= values.usable);
    for (const table of result.querySelectorAll("table")) {
      fill(table, plans[table.dataset.part], { withTotal: table.dataset.part !== "run" });
    }
    draw(result.querySelector(".planner-bar"), plans.memory, values.usable);
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    const shape = data.models[field("model").value];
    if (event.target.name === "model" && shape) {
      for (const [name, value] of Object.entries(shape)) {
        if (field(name)?.type === "checkbox") field(name).checked = value;
        else if (field(name)) field(name).value = value;
      }
      field("seq_len").value = Math.min(shape.max_seq_len, 8192);
    } else if (Object.hasOwn(Object.values(data.models)[0], event.target.name)) {
      field("model").value = "";
    }
    update();
  });
  update();
});
