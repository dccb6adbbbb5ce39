// Modal dialogs. Those with a form run an action on submit, and stay open with the error message if it fails.

/** Opens `dialog`; on submit awaits `action(formData)` and closes. Resolves to true after success, to false if cancelled. */
export function runDialog(dialog, action) {
  const form = dialog.querySelector("form");
  const problem = dialog.querySelector(".problem");
  const closed = new AbortController();
  const { signal } = closed;
  form.reset();
  problem.textContent = "";
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const submit = form.querySelector("[type=submit]");
      submit.disabled = true;
      problem.textContent = "";
      try {
        await action(new FormData(form));
        resolve(true);
        dialog.close();
      } catch (e) {
        problem.textContent = e.message;
        form.querySelector("[type=password]")?.select();
      } finally {
        submit.disabled = false;
      }
    }, { signal });
    form.querySelector("[data-close]").addEventListener("click", () => dialog.close(), { signal });
    // The Escape key also triggers this event.
    dialog.addEventListener("close", () => {
      // Do not leave a password in the page.
      form.reset();
      closed.abort();
      resolve(false);
    }, { signal });
    dialog.showModal();
    form.querySelector("[type=password]")?.focus();
  });
}

/** Opens a dialog that only shows something, until it is closed. */
export function showDialog(dialog) {
  dialog.querySelector("[data-close]").onclick = () => dialog.close();
  dialog.showModal();
}
