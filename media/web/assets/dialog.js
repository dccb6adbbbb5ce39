// Dialogs that ask, and stay open with a sentence if what was asked for does not work.

/** Opens `dialog`; on submit awaits `act(formData)` and closes. Resolves to true if it was done, false if it was called off. */
export function ask(dialog, act) {
  const form = dialog.querySelector("form");
  const problem = dialog.querySelector(".problem");
  const done = new AbortController();
  const { signal } = done;
  form.reset();
  problem.textContent = "";
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const submit = form.querySelector("[type=submit]");
      submit.disabled = true;
      problem.textContent = "";
      try {
        await act(new FormData(form));
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
    // Escape closes it too.
    dialog.addEventListener("close", () => {
      // A password does not stay in a page that is left open.
      form.reset();
      done.abort();
      resolve(false);
    }, { signal });
    dialog.showModal();
    form.querySelector("[type=password]")?.focus();
  });
}
