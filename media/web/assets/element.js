// Builds elements without ever reading text as HTML: stream names and notices come from the network.

/** An element with properties and children (elements or text). */
export function element(tag, properties, ...children) {
  const { role, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  if (role) made.setAttribute("role", role);
  made.append(...children);
  return made;
}
