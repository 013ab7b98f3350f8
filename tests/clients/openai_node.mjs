// What openai-node makes of a gateway: run by test_openai_node.py, which reads the one line of JSON.
import OpenAI from "openai";

const [url, breaks] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const model = "mesh";
const said = (content) => [{ role: "user", content }];
const parameters = { type: "object", properties: { city: { type: "string" } } };
const told = {};

const chat = await client.chat.completions.create({ model, messages: said("hello there") });
told.chat = chat.choices[0].message.content;

const stream = await client.chat.completions.create({
  model, messages: said("hello there"), stream: true, stream_options: { include_usage: true },
});
told.deltas = [];
for await (const chunk of stream) {
  const delta = chunk.choices[0]?.delta.content;
  if (delta) told.deltas.push(delta);
  if (chunk.usage) told.usage = chunk.usage.total_tokens;
}

const runner = client.chat.completions.runTools({
  model,
  messages: said("How is the weather?"),
  tools: [{
    type: "function",
    function: { name: "weather", parameters, parse: JSON.parse, function: ({ city }) => `rain in ${city}` },
  }],
});
told.tools = await runner.finalContent();

told.response = (await client.responses.create({ model, input: "hello there" })).output_text;
const events = client.responses.stream({ model, input: "hello there" });
told.kinds = [];
for await (const event of events) told.kinds.push(event.type);
told.streamed = (await events.finalResponse()).output_text;

// The client itself asks for base64 and unpacks it.
const input = ["one", "three"];
const unpacked = await client.embeddings.create({ model, input });
const plain = await client.embeddings.create({ model, input, encoding_format: "float" });
told.embeddings = [unpacked, plain].map((each) => each.data.map((row) => row.embedding));

told.models = [];
for await (const each of client.models.list()) told.models.push(each.id);

try {
  await client.chat.completions.create({ model: "nobody's", messages: said("hello") });
} catch (error) {
  told.unknown = [error.constructor.name, error.status, error.code, error.param];
}
try {
  for await (const _ of await client.chat.completions.create({ model, messages: said(breaks), stream: true }));
} catch (error) {
  told.broken = [error.constructor.name, error.code, error.message];
}
console.log(JSON.stringify(told));
