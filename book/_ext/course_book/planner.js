
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
    const num_params = total(call("parameters_on_rank", { ...values, ...alone }));
    const forward = total(call("forward_flops", values));
    const batch_tokens = values.dp_size * values.grad_accum_steps * values.micro_batch_size * values.seq_len;
    const num_devices = values.dp_size * values.tp_size * values.pp_size * values.cp_size;
    const step = worst("step_on_rank", values);
    const seconds = total(step);
    const num_tokens = values.num_tokens || call("compute_optimal_tokens", { num_params });
    const run_seconds = (num_tokens / batch_tokens) * seconds;
    return {
      memory: worst("memory_on_rank", values),
      step,
      sent: worst("communication_on_rank", values),
      run: new Map([
        ["parameters", num_params],
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

  function read() {
    const values = {};
    for (const element of form.elements) {
      if (!element.name) continue;
      if (element.type === "checkbox") values[element.name] = element.checked;
      else values[element.name] = element.type === "number" ? Number(element.value) : element.value;
    }
    const device = data.devices[values.device];
    const sizes = values.tp_size * values.pp_size * values.cp_size;
    return {
      ...data.others,
      ...values,
      ...data.recipes[values.recipe],
      peak_flops_per_second: device.peak_flops_per_second,
      intra_bytes_per_second: device.intra_bytes_per_second,
      inter_bytes_per_second: (values.network * 1e9) / 8,
      num_tokens: values.run_tokens * 1e12,
      devices_per_node: Math.min(values.devices_per_node, values.num_devices),
      stages_per_rank: values.schedule === "interleaved" && values.pp_size > 1 ? values.stages_per_rank : 1,
      dp_size: values.num_devices / sizes,
      zero_stage: Number(values.zero_stage),
      usable: device.memory_bytes * data.usable_memory,
    };
  }

  const label = (name) => field(name).closest("label").textContent;

  // Who would have to share a number that does not divide.
  function sharers(name, values) {
    if (name !== "seq_len") return `${values.tp_size} tensor ranks`;
    const parts = values.cp_size * (values.sequence_parallel ? values.tp_size : 1);
    return `${parts} ranks of context and sequence`;
  }

  function problem(values) {
    const invalid = form.querySelector("input:invalid");
    if (invalid) return `${label(invalid.name)}: ${invalid.validationMessage}`;
    if (!Number.isInteger(values.dp_size)) {
      return `${values.num_devices} devices are no multiple of ${values.tp_size * values.pp_size * values.cp_size}, ` +
        "the product of tensor, pipeline and context size.";
    }
    if (values.d_model % values.n_heads !== 0) return "The heads do not divide the width.";
    if (values.n_heads % values.n_kv_heads !== 0) return "The key-value heads do not divide the heads.";
    if (values.position === "rope" && (values.d_model / values.n_heads) % 2 !== 0) {
      return "Rotary positions turn pairs: width over heads must be even.";
    }
    if (values.position === "learned" && values.seq_len > values.max_seq_len) {
      return `${values.seq_len} tokens of a sequence, and the model has learned ${values.max_seq_len} positions.`;
    }
    if (values.num_devices % values.devices_per_node !== 0) {
      return `${values.num_devices} devices do not fill nodes of ${values.devices_per_node}.`;
    }
    const name = coursekitPlan.call("undivided", values);
    if (name === "n_layers") {
      return `${values.pp_size * values.stages_per_rank} stages need as many layers, and the model has ${values.n_layers}.`;
    }
    return name && `${label(name)} (${values[name]}): ${sharers(name, values)} cannot share them evenly.`;
  }

  function update() {
    const values = read();
    const wrong = problem(values);
    result.classList.toggle("planner-wrong", Boolean(wrong));
    if (wrong) {
      verdict.textContent = wrong;
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
      : `Does not fit: ${gib} GiB, and ${limit} may be used. Data parallel ${values.dp_size}.`;
    verdict.dataset.fits = String(needs <= values.usable);
    for (const table of result.querySelectorAll("table")) {
      fill(table, plans[table.dataset.part], { withTotal: table.dataset.part !== "run" });
    }
    draw(result.querySelector(".planner-bar"), plans.memory, values.usable);
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    const shape = data.presets[field("model").value];
    if (event.target.name === "model" && shape) {
      for (const [name, value] of Object.entries(shape)) {
        if (field(name)?.type === "checkbox") field(name).checked = value;
        else if (field(name)) field(name).value = value;
      }
      field("seq_len").value = Math.min(shape.max_seq_len, 8192);
    } else if (Object.hasOwn(Object.values(data.presets)[0], event.target.name)) {
      field("model").value = "";
    }
    update();
  });
  update();
});
