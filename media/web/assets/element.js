// Creates DOM elements without parsing HTML: stream names and notices come from the network.

/** Creates an element with properties and children (elements or text). */
export function element(tag, properties, ...children) {
  const { role, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  if (role) made.setAttribute("role", role);
  made.append(...children);
  return made;
}
